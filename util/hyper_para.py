"""The options of all scripts.

An option that code below a script's `main` depends on is declared once, as a field of a frozen settings class: its
name, default, help and checks stand together, `OptionParser.add_settings` makes the command line of them, and
`settings_from` the object that is handed on. What only a script's `main` looks at, the script adds itself.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from util.machine import available_cores

COMPACT = str(Path(__file__).parents[1] / "weights" / "compact.pth")
"""The network that comes with the repository, see docs/COMPACT.md."""

MODES = ("stm", "gt", "last", "two-frames", "compress", "gt-compress", "last-compress", "two-frames-compress")
"""Names of the memory modes; `inference_core.memory.READS` says what each holds."""


class OptionParser(argparse.ArgumentParser):
    """A parser whose options may be spelled with hyphens or underscores, and may not be abbreviated.

    Help shows the hyphens; --mem_every, as published, is the same as --mem-every.
    """

    def __init__(self, prog, description):
        super().__init__(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False)

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        return super().parse_known_args([_with_hyphens(word) for word in words[:end]] + words[end:], namespace)

    def error(self, message):
        """End the script with exit code 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message}; --help lists all options\n")

    def add_settings(self, settings, title=None, **defaults):
        """Add an option for each field of a settings class, under a heading if `title` is given.

        defaults: {field: value} where this script's default is another than the class's.
        """
        group = self.add_argument_group(title) if title else self
        for field in dataclasses.fields(settings):
            arguments = dict(field.metadata)
            names = [f"--{name}" for name in arguments.pop("names") or [field.name.replace("_", "-")]]
            default = defaults.get(field.name, field.default)
            group.add_argument(*names, dest=field.name, default=default, **arguments)


def _with_hyphens(word):
    """--mem_every=3 as --mem-every=3; anything but a long option as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def option(default, help, *, names=None, **arguments):
    """A field of a settings class that is also an option.

    names: spellings without the leading hyphens, if other than the field's. arguments: of argparse's add_argument.
    A default of True or False makes a switch.
    """
    if isinstance(default, bool) and "nargs" not in arguments:
        arguments["action"] = "store_false" if default else "store_true"
    return dataclasses.field(default=default, metadata={"help": help, "names": names, **arguments})


def settings_from(settings, args):
    """The settings object of this class with the values of parsed arguments."""
    return settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(settings)})


def positive(text):
    """An argparse type: a whole number from 1."""
    return _number(text, int, 1, None, "a whole number from 1 on")


def whole(text):
    """An argparse type: a whole number from 0."""
    return _number(text, int, 0, None, "a whole number from 0 on")


def fraction(text):
    """An argparse type: a number from 0 to 1."""
    return _number(text, float, 0, 1, "a number from 0 to 1")


def _number(text, kind, lowest, highest, wanted):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or number < lowest or (highest is not None and not number <= highest):
        raise argparse.ArgumentTypeError(f"{text} was found, {wanted} was expected")
    return number


@dataclass(frozen=True)
class TrackingSettings:
    """How a network tracks: the options of every script that does. Defaults are those of DAVIS."""

    model: str = option(COMPACT, "checkpoint of the network (default: the compact one that comes with the repository)",
                        metavar="FILE")
    mode: str = option("two-frames-compress", f"what the memory holds: {', '.join(MODES)} (default: %(default)s)",
                       choices=MODES, metavar="MODE")
    mem_every: int = option(3, "make every Nth frame a memory frame (default: %(default)s)", type=positive, metavar="N")
    include_last: bool = option(False, "make every frame a memory frame (default: every Nth, see --mem-every)")
    top_k: int = option(40, "let each pixel read the K nearest positions of the memory (default: %(default)s)",
                        names=["top"], type=positive, metavar="K")
    size: int = option(0, "compute with the shorter side reduced to so many pixels; 0 computes at the frames' own size "
                          "(default: %(default)s)", type=whole, metavar="PIXELS")
    amp: str | bool = option(False, "compute in half precision, float16 or bfloat16 (with no value: float16, on the "
                                    "CPU bfloat16); often faster, masks differ slightly (default: float32)",
                             nargs="?", const=True, choices=("float16", "bfloat16"), metavar="DTYPE")
    compile: bool = option(False, "compile the network first, on a GPU as CUDA graphs: it takes about a minute, then "
                                  "tracking is faster (default: do not)")
    device: str = option("auto", "compute on auto, cpu, cuda, cuda:1 or mps (default: %(default)s, the fastest there "
                                 "is)", metavar="DEVICE")
    threads: int | None = option(None, "CPU threads of each process (default: all cores that it may use)",
                                 type=positive, metavar="N")

    def core(self):
        """The keyword arguments of `InferenceCore` that these settings stand for, `size` excepted."""
        return {"mode": self.mode, "mem_every": self.mem_every, "top_k": self.top_k,
                "include_last": self.include_last, "amp": self.amp, "compile": self.compile}


@dataclass(frozen=True)
class ResultSettings:
    """Where an evaluation writes, and what beside the masks."""

    output: str = option(None, "folder for the results", required=True, metavar="FOLDER")
    save_scores: bool = option(False, "also write the probabilities of each frame, uint8, into OUTPUT_scores (default: "
                                      "masks alone)")
    zip: bool = option(False, "also write OUTPUT.zip, as the dataset's server takes it (default: do not)")
    overwrite: bool = option(False, "replace results of other settings, weights or masks (default: refuse)")


@dataclass(frozen=True)
class ScoringSettings:
    """What every script that scores is told."""

    workers: int = option(available_cores(), "processes that score (default: one for each core, here %(default)s)",
                          type=positive, metavar="N")
    report: str | None = option(None, "also write a report that opens in any browser (default: none)", metavar="HTML")


@dataclass(frozen=True)
class DecaySettings(ScoringSettings):
    """What the scripts that also give the decay are told."""

    official_decay: str | None = option(None, "repeat the official toolkit's wrong decay of sequences with more than "
                                              "255 scored frames, as it comes out with NumPy 1 or 2 (default: the "
                                              "right decay)", choices=("numpy1", "numpy2"))


@dataclass(frozen=True)
class DavisScoringSettings(DecaySettings):
    """What the scripts that score a split of DAVIS are told."""

    results: Path = option(None, "folder that holds a folder of masks for each sequence",
                           names=["results", "results-path"], type=Path, required=True, metavar="FOLDER")
    davis_path: Path = option(Path("DAVIS/2017/trainval"), "DAVIS, DAVIS/2017 or the folder in it that holds ImageSets "
                                                           "(default: %(default)s)", type=Path, metavar="FOLDER")
    split: str = option("val", "score the sequences of ImageSets/YEAR/SPLIT.txt (default: %(default)s)",
                        names=["split", "set"], metavar="SPLIT")
