"""Download BL30K, the rendered videos of training stage 1: about 700 GB, and 120 GB more while it is unpacked.

    python download_bl30k.py                            # all six parts, one after another, into BL30K
    python download_bl30k.py --root /data --yes         # into /data/BL30K, without being asked about the terms
    python download_bl30k.py --only bl30k-a bl30k-b     # two of them

The parts bl30k-a to bl30k-f go into BL30K/{JPEGImages,Annotations}. Each archive is removed once it is unpacked. After
an interruption, the same command continues, and does not fetch again what is finished. If one link fails, the others
are still fetched, and the exit code is 1.

The Google Drive ids are the published ones. Google Drive limits how often a file may be fetched. If it refuses one, try
again the next day, or save the file with a browser as ROOT/.downloads/NAME.tar and run the same command again.
"""

import sys

from util.download.parts import Part, add_download_options, agree, download_parts, drive_url
from util.errors import run_script
from util.options import OptionParser

TERMS = """
BL30K was made by the authors of MiVOS (https://github.com/hkchengrex/MiVOS). It is derived from ShapeNet
(https://shapenet.org), whose terms apply, and must not be used commercially. If you use it, cite both.
"""

IDS = {
    "a": "1z9V5zxLOJLNt1Uj7RFqaP2FZWKzyXvVc",
    "b": "11-IzgNwEAPxgagb67FSrBdzZR7OKAEdJ",
    "c": "1ZfIv6GTo-OGpXpoKen1fUvDQ0A_WoQ-Q",
    "d": "1G4eXgYS2kL7_Cc0x3N1g1x7Zl8D_aU_-",
    "e": "1Y8q0V_oBwJIY27W_6-8CD1dRqV2gNTdE",
    "f": "1nawBAazf_unMv46qGBHhWcQ4JXZ5883r",
}

SIZE = 117_000_000_000
"""Bytes of a part; about 700 GB in all."""

PARTS = tuple(Part(f"bl30k-{letter}", drive_url(identity), f"bl30k-{letter}.tar", "BL30K",
                   ("JPEGImages", "Annotations"), size=SIZE) for letter, identity in IDS.items())


def get_args_parser():
    parser = OptionParser("download_bl30k.py", __doc__)
    add_download_options(parser, "bl30k-a to bl30k-f")
    return parser


def main(args):
    agree(TERMS, args.yes)
    return download_parts(PARTS, args)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
