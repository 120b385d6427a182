"""MediaPipe's BlazePose (full) on stored pictures, for tools/peers.py. It runs in an environment of
its own, since mediapipe needs an older numpy: pip install mediapipe==0.10.21"""
import argparse
import sys
import time

import numpy as np

MISSING = (
    "BlazePose needs mediapipe, which is not here; make an environment of its own with "
    "pip install mediapipe==0.10.21"
)


def main(pictures, out):
    "pictures: (N, H, W, 3) uint8 as .npy; out: .npz of joints (N, 33, 3) x, y, score and seconds."
    try:
        import mediapipe
    except ImportError:
        sys.exit(MISSING)
    try: images = np.load(pictures, mmap_mode="r")
    except (OSError, ValueError) as error: sys.exit(f"{pictures} cannot be read as .npy ({error})")
    height, width = images.shape[1:3]
    joints, seconds = np.full((len(images), 33, 3), np.nan), np.zeros(len(images))
    with mediapipe.solutions.pose.Pose(
        static_image_mode=True, model_complexity=1, min_detection_confidence=0.1
    ) as pose:
        for row, image in enumerate(images):
            image, start = np.ascontiguousarray(image), time.process_time()
            found = pose.process(image).pose_landmarks
            seconds[row] = time.process_time() - start
            if found is None: continue
            points = [(p.x * width - 0.5, p.y * height - 0.5, p.visibility) for p in found.landmark]
            joints[row] = points
    np.savez(out, joints=joints, seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", help="(N, H, W, 3) uint8 as .npy")
    parser.add_argument("out", help=".npz to write")
    main(**vars(parser.parse_args()))
