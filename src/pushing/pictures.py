"""The pictures of an evaluated model of robot pushing."""

PICTURES = (  # file, what it shows, the target that makes it
    ("rollout_strip.png", "best test clip, rows from the top: true | prior's mean | samples", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame, mean over the test clips, beside the baselines", "evaluate"),
    ("rollout.gif", "best test clip, from the left: true | prior's mean | samples", "evaluate"),
)
