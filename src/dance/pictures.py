"""The pictures of an evaluated model of dancers."""

PICTURES = (  # file, what it shows, the target that makes it; those that move are played on demand
    ("rollout_strip.png", "validation rollout, rows from the top: true | drawn | pose", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame of the validation rollout, beside the baselines", "evaluate"),
    ("rollout.gif", "validation rollout, from the left: true | drawn | pose", "evaluate"),
    ("samples.gif", "validation rollout, from the left: true | sample 1 | sample 2 | sample 3", "evaluate"),
    ("pred_seq*.gif", "test rollout {}, from the left: drawn | pose", "submission"),
)
