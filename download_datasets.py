"""Download the datasets for training and evaluation, except BL30K (download_bl30k.py).

    python download_datasets.py                                     # everything, below the current folder
    python download_datasets.py --root ..                           # beside the repository, like the published code
    python download_datasets.py --only davis-2017 davis-2017-test
    python download_datasets.py --only youtube-train --root /data --yes

The script shows the terms first and asks you to agree; --yes agrees to them without being asked. --only takes these
names, which stand for these folders:

    static                    static/{BIG_small,HRSOD_small,DUTS-TR,DUTS-TE,ecssd,fss}
    davis-2016                DAVIS/2016
    davis-2017                DAVIS/2017/trainval
    davis-2017-test           DAVIS/2017/test-dev
    davis-2017-scribbles      DAVIS/2017/trainval/Scribbles
    youtube-train             YouTube/train, and YouTube/train_480p with a shorter side of 480
    youtube-valid             YouTube/valid
    youtube-valid-all         YouTube/all_frames/valid_all_frames
    youtube-2018-valid        YouTube2018/valid
    youtube-2018-valid-all    YouTube2018/all_frames/valid_all_frames

After an interruption, the same command continues, and does not fetch again what is finished. If one link fails, the
others are still fetched, and the exit code is 1.

The Google Drive ids are the published ones. Google Drive limits how often a file may be fetched. If it refuses one, try
again the next day, or save the file with a browser as ROOT/.downloads/NAME.zip and run the same command again. Archives
are removed once they are unpacked.
"""

import sys

from util.download.parts import Part, add_download_options, agree, download_parts, drive_url
from util.errors import run_script
from util.options import OptionParser

TERMS = """
These datasets belong to their authors, and most of them may be used for research only. Read and respect their terms:

    DUTS            http://saliencydetection.net/duts/
    HRSOD           https://github.com/yi94code/HRSOD
    FSS-1000        https://github.com/HKUSTCV/FSS-1000
    ECSSD           https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html
    BIG             https://github.com/hkchengrex/CascadePSP
    DAVIS           https://davischallenge.org/
    YouTube-VOS     https://youtube-vos.org/

If you use them, cite them.
"""

VIDEOS = ("JPEGImages", "Annotations")

PARTS = (
    Part("static", drive_url("1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd"), "static.zip", "static",
         ("BIG_small", "HRSOD_small", "DUTS-TR", "DUTS-TE", "ecssd", "fss")),
    Part("davis-2016", drive_url("198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD"), "davis-2016.zip", "DAVIS/2016",
         ("Annotations",)),
    Part("davis-2017", drive_url("1kiaxrX_4GuW6NmiVuKGSGVoKGWjOdp6d"), "davis-2017.zip", "DAVIS/2017/trainval",
         (*VIDEOS, "ImageSets")),
    Part("davis-2017-test", drive_url("1fmkxU2v9cQwyb62Tj1xFDdh2p4kDsUzD"), "davis-2017-test.zip",
         "DAVIS/2017/test-dev", (*VIDEOS, "ImageSets")),
    Part("davis-2017-scribbles", drive_url("1JzIQSu36h7dVM8q0VoE4oZJwBXvrZlkl"), "davis-2017-scribbles.zip",
         "DAVIS/2017/trainval", ("Scribbles",)),
    Part("youtube-train", drive_url("13Eqw0gVK-AO5B-cqvJ203mZ2vzWck9s4"), "youtube-train.zip", "YouTube/train", VIDEOS,
         resized="YouTube/train_480p"),
    Part("youtube-valid", drive_url("1o586Wjya-f2ohxYf9C1RlRH-gkrzGS8t"), "youtube-valid.zip", "YouTube/valid",
         (*VIDEOS, "meta.json")),
    Part("youtube-valid-all", drive_url("1rWQzZcMskgpEQOZdJPJ7eTmLCBEIIpEN"), "youtube-valid-all.zip",
         "YouTube/all_frames/valid_all_frames", ("JPEGImages",)),
    Part("youtube-2018-valid", drive_url("1-QrceIl5sUNTKz7Iq0UsWC6NLZq7girr"), "youtube-2018-valid.zip",
         "YouTube2018/valid", (*VIDEOS, "meta.json")),
    Part("youtube-2018-valid-all", drive_url("1yVoHM6zgdcL348cFpolFcEl4IC1gorbV"), "youtube-2018-valid-all.zip",
         "YouTube2018/all_frames/valid_all_frames", ("JPEGImages",)),
)


def get_args_parser():
    parser = OptionParser("download_datasets.py", __doc__)
    add_download_options(parser, "as listed above")
    return parser


def main(args):
    agree(TERMS, args.yes)
    return download_parts(PARTS, args)


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
