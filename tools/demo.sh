# `bash make.sh demo`: from videos to a trained network, without any download of data.
# make.sh reads this file; it defines build and say, and sets python.
# shellcheck shell=bash disable=SC2154

demo() {
  build
  say "drawing videos: eight kinds of motion, 100 of each for training, 25 for validation"
  "$python" -m tools.make_demo_videos data/demo/videos --train 100 --val 25
  say "decoding them to frames and lists"
  local split
  for split in train val; do
    "$python" -m tools.extract_frames "data/demo/videos/$split" "data/demo/frames/$split" \
      --list "data/demo/$split.txt" --classes data/demo/classes.txt --short_side 80
  done
  say "training a narrow SIFA-Net on two processes"
  rm -rf output/demo
  OMP_NUM_THREADS=1 "$python" -m torch.distributed.run --nproc_per_node=2 train_val_3d.py \
    --config_file=settings/demo.yml
  cat <<TEXT

The log is output/demo/log.txt, the figures are output/demo/metrics.jsonl and, as curves,
  ${python#"$PWD"/} -m tensorboard.main --logdir output/demo/tensorboard
Next: ask the network about a video, and see where it looks,
  ${python#"$PWD"/} -m tools.predict data/demo/videos/val/move_up/0000.mp4 --checkpoint output/demo/checkpoints/last.pth
  ${python#"$PWD"/} -m tools.visualize data/demo/videos/val/move_up/0000.mp4 --checkpoint output/demo/checkpoints/last.pth
or teach it classes of your own: docs/own_videos.md.
TEXT
}
