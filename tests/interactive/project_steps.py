"""What is done to a project on the disk, and what is there then."""


def fill(object_id, top, left, side=10):
    """A change that fills a square."""
    def change(ids):
        ids[top:top + side, left:left + side] = object_id
        return ids
    return change


def contents(folder):
    """{path: bytes} of all that a project's masks and header are."""
    return {str(file.relative_to(folder)): file.read_bytes() for part in ("annotations", "masks") for file in
            sorted((folder / part).iterdir())} | {"project.json": (folder / "project.json").read_bytes()}
