"""The options of every script: each explained, none by accident."""

import argparse
import runpy
from pathlib import Path

import pytest

from exporting.formats import FORMATS
from model import PRESETS
from tests.conftest import ROOT
from util.errors import run_script
from util.hyper_para import EXPORT_FORMATS, PRESET_NAMES
from util.options import OptionParser

TRACKING = "--model --mode --mem-every --include-last --top --size --places --amp --compile --device --threads"
RESULTS = "--output --save-scores --zip --overwrite"
SCORING = "--workers --report"

# A new option is a decision: it is written here, too. A new script is added here.
OPTIONS = {
    "train.py":
        "--recipe --check-data "
        "--static-root --bl-root --yv-root --davis-root --video-root --fine-tune --exclude --pack --pasted "
        "--copy-paste --hide --max-jump "
        "--workers --num-workers --perturb-max --perturb-min --crop "
        "--stage --batch-size -b --accumulate --iterations -i --steps --lr --gamma --warm-up --ema --mix --trunk-lr "
        "--train --clip --damage --rollout "
        "--klloss-weight --decoder-f2-weight --decoder-f4-weight --temperature --start-warm --end-warm --top-p "
        "--dice-weight --match-weight "
        "--preset --repeat --load-network --backbone-weights "
        "--id --out-root --load-model --resume --minutes --save-interval --keep --log-interval --image-interval "
        "--val-davis --val-every --no-amp --amp-dtype --compile --capture --benchmark --debug --seed --device",
    "track.py": "--example --video --mask --click --box --start --end --backward --both-ways --output --overwrite "
                f"--resume --stamp --across-cuts --no-overlay --save-scores --export {TRACKING}",
    "track_many.py": "--output --workers --gpus-per-worker --ray --shard --worst-first "
                     f"--overwrite --stamp --across-cuts --no-overlay --save-scores --export {TRACKING}",
    "annotate.py": f"--example --output --root --host --port --no-browser {TRACKING}",
    "eval_davis.py": f"--davis-path --split --repeat {RESULTS} {TRACKING}",
    "eval_davis_2016.py": f"--davis-path {RESULTS} {TRACKING}",
    "eval_youtube.py": f"--yv-path --split --output-all {RESULTS} {TRACKING}",
    "eval_generic.py": f"--long-video-path {RESULTS} {TRACKING}",
    "benchmark.py":
        "--protocol --model --preset --mode --mem-every --top --precision --compile --reference --objects --size "
        "--frames --device --threads --static-root --video-root --workers --crop --json",
    "export_masks.py": "--format --video --output --overwrite --names --objects --hold --largest --fill-holes --grow "
                       "--feather --soft",
    "export_model.py": "--output",
    "export_onnx.py": "--model --frame-size --size --output",
    "track_onnx.py": "--output --threads",
    "import_masks.py": "--output --video --overwrite",
    "make_pack.py": "--static-root --video-root --exclude --output",
    "gpu_check.py": "--rehearse --minutes --davis-path --json",
    "download_bl30k.py": "--root --only --yes",
    "download_datasets.py": "--root --only --yes",
    "download_models.py": "--root --only --yes",
    "evaluation/check.py": "--dataset --split --root --results",
    "evaluation/baselines.py": "--method --davis-path --split --output --overwrite",
    "evaluation/generic.py": f"{SCORING} --compare --ground-truth --results --results-path --images --strict "
                              "--all-frames --ignore-extra-ids",
    "evaluation/references.py": f"--davis-path --both-ways {TRACKING}",
    "evaluation/clicks.py": "--root --method --model --every --json",
    "evaluation/quality.py": f"--davis-path --video-root {TRACKING}",
    "evaluation/scoring_speed.py": "--folder --rounds",
    "evaluation/seek_speed.py": "--folder --rounds",
    "evaluation/2016/evaluation.py": f"{SCORING} --official-decay --results --results-path --davis-path --split --set",
    "evaluation/2017/evaluation_ours.py": f"{SCORING} --official-decay --compare --results --results-path --davis-path "
                                          "--split --set --task --show",
    "evaluation/2017/evaluation_method.py": f"{SCORING} --official-decay --compare --results --results-path "
                                            "--davis-path --split --set --task",
    "evaluation/2017/evaluation_codalab.py": f"{SCORING} --official-decay",
    "evaluation/youtube/evaluation.py": f"{SCORING} --yv-path --split --results --results-path --seen --include-first "
                                        "--per-category",
}

HIDDEN = {
    "train.py": "--norm --temporal-shuffle --perturb-group --local-rank",
    "eval_davis_2016.py": "--split",
}
"""Accepted since published commands and launchers give them, but not shown."""

@pytest.fixture(scope="module")
def parsers():
    """{script: its parser}"""
    return {script: runpy.run_path(str(ROOT / script), run_name="imported")["get_args_parser"]() for script in OPTIONS}


def options_of(parser, hidden=False):
    return [action for action in parser._actions
            if (action.help == argparse.SUPPRESS) == hidden and not isinstance(action, argparse._HelpAction)]


def test_every_script_is_looked_at():
    scripts = {str(file.relative_to(ROOT)) for folder in (".", "evaluation") for file in (ROOT / folder).glob("*.py")}
    scripts |= {str(file.relative_to(ROOT)) for file in (ROOT / "evaluation").glob("*/*.py")}
    assert {name for name in scripts if "get_args_parser" in (ROOT / name).read_text()} == set(OPTIONS)


@pytest.mark.parametrize("script", OPTIONS)
def test_options_are_those_that_were_decided_on(script, parsers):
    names = [name for action in options_of(parsers[script]) for name in action.option_strings]
    assert sorted(names) == sorted(OPTIONS[script].split())
    hidden = [name for action in options_of(parsers[script], hidden=True) for name in action.option_strings]
    assert sorted(hidden) == sorted(HIDDEN.get(script, "").split())


@pytest.mark.parametrize("script", OPTIONS)
def test_help_tells_what_each_option_is_and_what_holds_without_it(script, parsers):
    assert isinstance(parsers[script], OptionParser)
    for action in options_of(parsers[script]):
        name = action.option_strings[0] if action.option_strings else action.dest
        assert not any("_" in spelling for spelling in action.option_strings), name
        assert action.help, name
        assert action.required or "default" in action.help, f"{name}: what holds where it is not given?"
        assert action.nargs == 0 or action.choices or action.metavar, f"{name}: a value of what kind?"
    assert len(parsers[script].format_help()) > 200


def test_help_has_headings_and_a_class_s_own_options_come_first(parsers):
    own, heading, shared = parsers["track.py"].format_help().partition("\nvideo and results:\n")[2].partition(
        "\ntracking:\n")
    assert own.index("--video ") < own.index("--overwrite ")
    assert heading and "--model " in shared


def test_stages_defaults_are_in_the_help(parsers):
    text = " ".join(parsers["train.py"].format_help().split())
    assert "(default by stage: 0: 8, 1: 4, 2: 4, 3: 4, clicks: 8)" in text
    assert "(default by stage: 0: 300000, 1: 500000, 2: 300000, 3: 150000, clicks: 8000)" in text


def test_presets_are_named_without_loading_them():
    assert tuple(PRESETS) == PRESET_NAMES


def test_formats_are_named_without_their_writers():
    assert tuple(FORMATS) == EXPORT_FORMATS


def test_spellings(parsers):
    parse = parsers["train.py"].parse_args
    assert vars(parse(["--num_workers", "3"])) == vars(parse(["--workers=3"]))
    assert parse(["--batch_size", "3"]).batch_size == parse(["-b", "3"]).batch_size == 3


@pytest.mark.parametrize("arguments", [["--amp"], ["--iter", "3"], ["--stage", "7"]])
def test_abbreviations_and_mistakes_are_told_in_one_line(parsers, arguments, capsys):
    """--amp is an option of the evaluation; here it was once taken for --amp_dtype."""
    assert run_script(parsers["train.py"], lambda args: 0, arguments) == 2
    error = capsys.readouterr().err
    assert arguments[0] in error and error.count("\n") == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e999", "x", "9" * 5000])
def test_values_out_of_range_are_refused_by_every_option_that_takes_a_number(parsers, value, capsys):
    """Without one exception: a learning rate that is no number once made a network of none."""
    for script, parser in parsers.items():
        for action in parser._actions:
            if action.type is None or action.type in (str, Path) or action.type.__name__ == "plain_name":
                continue
            option = action.option_strings[-1]
            if (option, value) == ("--grow", "-1"):
                continue
            words = [f"{option}={value}"] if action.nargs is None or action.nargs == "*" else [option, value, value]
            with pytest.raises(SystemExit) as end:
                parser.parse_args(words)
            error = capsys.readouterr().err
            assert end.value.code == 2 and error.count("\n") == 1 and len(error) < 300, (script, option, value)
            assert option in error
