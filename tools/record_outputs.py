"""Record a model's raw outputs over a source, for `accelerator: replay`.

python tools/record_outputs.py SOURCE OUTPUT.npz [--model NAME] [--frames N]
"""

import argparse
import itertools
from pathlib import Path

from edgepose.build import build_model, source_opener
from edgepose.config import CameraConfig, load_config
from edgepose.imaging.preprocess import preprocess
from edgepose.inference.replay import OutputRecorder
from edgepose.pipeline import CropState


def main() -> None:
    """Record, and print how many frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a source URI, such as synthetic: or a video file")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="movenet-lightning-int8")
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    model = build_model(load_config(None, {"model.name": options.model}))
    recorder, crop = OutputRecorder(model.interpreter), CropState()
    with source_opener(CameraConfig(source=options.source))() as source:
        for frame in itertools.islice(source.frames(), options.frames):
            region = crop.region or model.pose_model.default_region(frame.size_wh)
            tensor, to_frame = preprocess(frame.image, region, model.pose_model.input_spec)
            crop.update(model.pose_model.decode(recorder.invoke(tensor), to_frame), model, frame)
    recorder.save(options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
