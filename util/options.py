"""How scripts declare and read options: the parser, fields that are options, and types of their values.

`util.hyper_para` has the options themselves.
"""

import argparse
import dataclasses
import sys


class OptionParser(argparse.ArgumentParser):
    """A parser whose options may be spelled with hyphens or underscores, and may not be abbreviated.

    Help shows the hyphens; --mem_every, as published, is the same as --mem-every.
    """

    def __init__(self, prog, description, recipes=None, implied=None):
        """recipes: folder whose files NAME.txt hold options, one a line, that --recipe NAME puts before all others.

        implied: {option's name in the result: the recipe where it is given, and no other recipe is}.
        """
        super().__init__(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False)
        self._recipes, self._implied = recipes, implied or {}
        if recipes:
            self.add_argument("--recipe", metavar="NAME",
                              help=f"read options from {recipes.name}/NAME.txt; options on the command line override "
                                   f"them (default: none; there are {', '.join(_recipe_names(recipes))})")

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        words[:end] = [_with_hyphens(word) for word in words[:end]]
        if self._recipes:
            given = super().parse_known_args(words)[0]
            implied = (recipe for name, recipe in self._implied.items() if getattr(given, name))
            recipe = given.recipe or next(implied, None)
            words = [*(self._read_recipe(recipe) if recipe else ()), *words]
        return super().parse_known_args(words, namespace)

    def _read_recipe(self, name):
        """The options of a recipe, as words of a command line."""
        known = _recipe_names(self._recipes)
        if name not in known:
            self.error(f"--recipe {name}: there is none of this name, there are {', '.join(known)}")
        lines = (self._recipes / f"{name}.txt").read_text().splitlines()
        return [_with_hyphens(word) for line in lines for word in line.partition("#")[0].split()]

    def error(self, message):
        """End the script with exit code 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message}; --help lists all options\n")

    def add_settings(self, settings, title=None, **defaults):
        """Add an option for each field of a settings class, under a heading if `title` is given.

        The class's own fields come before those that it has from another class.

        defaults: {field: value} where this script's default is another than the class's.
        """
        group = self.add_argument_group(title) if title else self
        for field in sorted(dataclasses.fields(settings), key=lambda field: field.name not in settings.__annotations__):
            arguments = dict(field.metadata)
            names = [f"--{name}" if len(name) > 1 else f"-{name}"
                     for name in arguments.pop("names") or [field.name.replace("_", "-")]]
            default = defaults.get(field.name, field.default)
            group.add_argument(*names, dest=field.name, default=default, **arguments)


def _with_hyphens(word):
    """--mem_every=3 as --mem-every=3; anything but a long option as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _recipe_names(folder):
    return sorted(file.stem for file in folder.glob("*.txt"))


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


MOST = 2**31 - 1
"""The largest whole number that options take."""

LONGEST_SHOWN = 40
"""Messages show so many characters of a value that is none."""

MOST_PIXELS = 1000
"""The largest distance by which an edge moves."""

MOST_PROCESSES = 1024
"""The largest number of threads or processes."""


def positive(text):
    """An argparse type: a whole number from 1."""
    return _number(text, int, 1, MOST, "a whole number from 1 on")


def whole(text):
    """An argparse type: a whole number from 0."""
    return _number(text, int, 0, MOST, "a whole number from 0 on")


def few_pixels(text):
    """An argparse type: how far an edge reaches, from 0."""
    return _number(text, int, 0, MOST_PIXELS, f"a whole number from 0 to {MOST_PIXELS}")


def some_pixels(text):
    """An argparse type: how far an edge moves, outwards or, if negative, inwards."""
    return _number(text, int, -MOST_PIXELS, MOST_PIXELS, f"a whole number from -{MOST_PIXELS} to {MOST_PIXELS}")


def few(text):
    """An argparse type: a number of threads or processes, from 1."""
    return _number(text, int, 1, MOST_PROCESSES, f"a whole number from 1 to {MOST_PROCESSES}")


def few_or_none(text):
    """An argparse type: a number of threads or processes, from 0."""
    return _number(text, int, 0, MOST_PROCESSES, f"a whole number from 0 to {MOST_PROCESSES}")


def port(text):
    """An argparse type: a port that needs no privileges."""
    return _number(text, int, 1024, 65535, "a whole number from 1024 to 65535")


def not_negative(text):
    """An argparse type: a number from 0."""
    return _number(text, float, 0, sys.float_info.max, "a number from 0 on")


def above_zero(text):
    """An argparse type: a number above 0."""
    return _number(text, float, sys.float_info.min, sys.float_info.max, "a number above 0")


def fraction(text):
    """An argparse type: a number from 0 to 1."""
    return _number(text, float, 0, 1, "a number from 0 to 1")


def gpu_share(text):
    """An argparse type: a share of a GPU, above 0 and at most 1."""
    return _number(text, float, 1e-3, 1, "a number above 0 and up to 1")


def shard(text):
    """An argparse type: PART/PARTS, as (PART, PARTS), PART from 1 to PARTS."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and len(text) < LONGEST_SHOWN
            and 1 <= int(part) <= int(parts) <= MOST):
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]} was found, PART/PARTS was expected, from 1/16 to "
                                         "16/16 for sixteen parts")
    return int(part), int(parts)


def frame_size(text):
    """An argparse type: a size like 1280x720, as (width, height)."""
    sides = text.replace("×", "x").split("x")
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]!r} was found, width and height like 1280x720 were "
                                         "expected")
    return tuple(_number(side, int, 1, MOST, "a number of pixels from 1 on") for side in sides)


def plain_name(text):
    """An argparse type: a name that leads into no other folder."""
    if text in ("", ".", "..") or set(text) & set("/\\\0"):
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]!r} was found, a name without slashes was expected")
    return text


def _number(text, kind, lowest, highest, wanted):
    try:
        number = kind(text)
    except ValueError:
        number = None
    # Comparisons with NaN are all false.
    if number is None or not lowest <= number <= highest:
        limit = f" to {highest}" if kind is int and number is not None and number > highest == MOST else ""
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]} was found, {wanted}{limit} was expected")
    return number
