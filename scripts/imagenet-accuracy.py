#!/usr/bin/env python3
"""Top-1 accuracy of efficientnet-lite0 through the `paisley` binary, over the corpus' 1000 ImageNet pictures.

Each picture's central 87.5 % is resized to 224x224 (bicubic) and scaled to -1..1; each call of the binary runs one batch. On the CPU over all
pictures, then on the GPU over the first --gpu-pictures, which must get the same classes as on the CPU. The pictures come from ImageNet's training
split: the figure shows that the answers are right (ONNX Runtime has 0.877), it is no benchmark accuracy. Prints a JSON document; the exit code
is 1 when the accuracy is off by more than 0.003 or a class differs. Needs numpy and Pillow.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import engine
import numpy as np
from PIL import Image

EXPECTED = 0.877
ALLOWED = 0.003


def pictures(corpus, count):
    """The first `count` pictures as the network wants them, and their classes."""
    with np.load(corpus / "data/crop288_jpeg.npz") as data:
        jpeg, offsets, labels = data["jpeg"], data["offsets"], data["labels"]
    batch = np.empty((count, 3, 224, 224), np.float32)
    for i in range(count):
        picture = Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB")
        edge = (picture.width - 252) // 2
        picture = picture.crop((edge, edge, edge + 252, edge + 252)).resize((224, 224), Image.Resampling.BICUBIC)
        batch[i] = (np.asarray(picture, np.float32).transpose(2, 0, 1) - 127) / 128
    return batch, labels[:count]


def classify(paisley, model, images, device, batch):
    """The classes of `images`; each distinct size of a batch is compiled anew by the binary."""
    classes = []
    for start in range(0, len(images), batch):
        outputs, _ = engine.run(paisley, model, {"input": images[start : start + batch]}, device)
        classes.append(outputs["logits"].argmax(1))
        print(f"\r{device}: {min(start + batch, len(images))}/{len(images)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(classes)


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="the corpus folder")
    parser.add_argument("--paisley", type=Path, metavar="FILE", help="the binary (default: the release build)")
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="on the CPU (default: 1000)")
    parser.add_argument("--gpu-pictures", type=int, default=100, metavar="N", help="on the GPU (default: 100; 0: none)")
    parser.add_argument("--batch", type=int, default=50, metavar="N", help="pictures a run (default: 50)")
    parser.add_argument("--gpu-batch", type=int, default=10, metavar="N", help="pictures a run on the GPU (default: 10)")
    arguments = parser.parse_args()

    paisley = engine.binary(arguments.paisley)
    model = arguments.corpus / "models/efficientnet-lite0/model.onnx"
    images, labels = pictures(arguments.corpus, arguments.pictures)
    try:
        on_cpu = classify(paisley, model, images, "cpu", arguments.batch)
        n_gpu = min(arguments.gpu_pictures, len(images))
        on_gpu = classify(paisley, model, images[:n_gpu], "gpu", arguments.gpu_batch) if n_gpu else on_cpu[:0]
    except engine.Failure as failure:
        sys.exit(f"paisley: {failure}")
    top_1 = float((on_cpu == labels).mean())
    differing = np.flatnonzero(on_gpu != on_cpu[:n_gpu]).tolist()
    print(json.dumps({"pictures": len(images), "top_1_cpu": top_1, "gpu_pictures": n_gpu, "gpu_differs_at": differing}))
    if differing or (len(images) == 1000 and abs(top_1 - EXPECTED) > ALLOWED):
        sys.exit(1)


if __name__ == "__main__":
    main()
