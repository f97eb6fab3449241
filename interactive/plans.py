"""What is to be tracked, in which order, and which references are given beforehand. It needs no torch."""

from typing import NamedTuple

from util.errors import InputError

FORWARD, BACKWARD, BOTH = "forward", "backward", "both"


class Job(NamedTuple):
    """What is to be tracked."""

    direction: str
    """FORWARD, BACKWARD or BOTH."""

    start: int
    """The position from which on, included."""

    first: int
    last: int
    """Tracking stays between these positions, both included."""

    objects: tuple
    """Ids of the objects to track."""

    across_cuts: bool = False
    """Whether to go on where a new shot begins, and not to end there."""


MOST_REFERENCES = 8
"""So many references of an object the core keeps, see `inference_core.InferenceCore`."""


def plan_job(project, job):
    """Return the passes of a Job: [(first position, last position, {position: [ids]} of the references given before)].

    An object is tracked from its reference in the first frame, or the nearest one behind it; if all lie ahead, from the
    first of them on. Raises InputError if the job is none, or a pass would track nothing.
    """
    count = len(project)
    if job.direction not in (FORWARD, BACKWARD, BOTH) or not 0 <= job.first <= job.start <= job.last < count:
        raise InputError("there is no such range of frames")
    objects = {number for number in job.objects if number in project.objects and not project.objects[number].locked}
    if not objects:
        raise InputError("no object is chosen, or all of them are locked")
    references = {position: objects.intersection(ids) for position, ids in project.reference_positions().items()}
    passes = []
    for direction, end in ((FORWARD, job.last), (BACKWARD, job.first)):
        if job.direction not in (direction, BOTH):
            continue
        sign = 1 if direction == FORWARD else -1
        behind = set().union(*(ids for position, ids in references.items() if sign * (position - job.start) <= 0))
        ahead = set().union(*(ids for position, ids in references.items()
                              if 0 < sign * (position - job.start) <= sign * (end - job.start)))
        if behind or ahead:
            passes.append((job.start, end, choose_seeds(references, job.start, behind)))
    if not passes:
        where = {FORWARD: "in this frame or before it", BACKWARD: "in this frame or after it", BOTH: "in any frame"}
        raise InputError(f"nothing is drawn {where[job.direction]}: draw the object first, then track")
    return passes


def choose_seeds(references, start, objects, most=MOST_REFERENCES):
    """Return {position: ids} of the references to give before tracking begins: the nearest ones of each object.

    The nearest one comes last, so that it is what the memory saw last. That of the first frame itself is given when its
    turn comes.
    """
    seeds = {}
    for number in objects:
        known = [position for position, ids in references.items() if number in ids and position != start]
        for position in sorted(known, key=lambda position: abs(position - start))[:most - 1]:
            seeds.setdefault(position, []).append(number)
    return dict(sorted(seeds.items(), key=lambda item: -abs(item[0] - start)))
