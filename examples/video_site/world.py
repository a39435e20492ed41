"""Makes the world of a video site: short films by channels, each with captions.

python examples/video_site/world.py runs/video_site
"""

from recsys.demo.example import DAYS, ExampleVideo, Viewings, example_command, viewings_by_taste

SUBJECTS = {
    "sun": ("Crossing the sky", "The sky run backwards", "Sunset", "Sunrise"),
    "harbour": ("Container leaves", "Container returns to", "Unloading at", "Loading at"),
    "eclipse": ("Ring of fire", "Ring of fire in reverse", "Eclipse setting", "Eclipse rising"),
    "kites": ("Kite race past", "Kite turns back at", "Kite landing at", "Kite launch at"),
    "gliders": ("Glider bound for", "Glider home from", "Glider lands at", "Glider winched up at"),
    "sailing": ("Sailing out of", "Sailing back to", "Downwind to", "Upwind from"),
}
"""What is filmed, in the order of what clips can show, by how it moves."""
OVER = {"sun": "over ", "eclipse": "over "}
PLACES = ("Crete", "Bergen", "Dakar", "Cusco", "Osaka", "Perth", "Malta", "Nairobi")
CHANNELS = {
    "sun": ("Sky Diary", "Golden Hour"),
    "harbour": ("Harbour Cam", "Crane Spotters"),
    "eclipse": ("Eclipse Chasers", "Shadow Paths"),
    "kites": ("Kite Club", "String Theory"),
    "gliders": ("Glider Log", "Silent Wings"),
    "sailing": ("Tall Ships", "Windward"),
}
SPOKEN = ("moves to the right", "moves to the left", "comes down", "goes up")
SHAPES = (
    "red disc",
    "blue striped box",
    "yellow ring",
    "green diamond",
    "white cross",
    "violet sail",
)


def make_videos(per_kind: int) -> list[ExampleVideo]:
    """`per_kind` videos of each subject and each way that it moves."""
    videos = []
    for appearance, (topic, phrases) in enumerate(SUBJECTS.items()):
        for motion, phrase in enumerate(phrases):
            for number in range(per_kind):
                place = PLACES[(number + 2 * motion + appearance) % len(PLACES)]
                title = f"{phrase} {OVER.get(topic, '')}{place}"
                videos.append(
                    ExampleVideo(
                        title=title,
                        creator=CHANNELS[topic][number % 2],
                        topic=topic,
                        appearance=appearance,
                        motion=motion,
                        text=place,
                        uploaded_day=DAYS * 0.9 * number / per_kind,
                        captions=(f"{title}.", f"The {SHAPES[appearance]} {SPOKEN[motion]}."),
                    )
                )
    return videos


def make_world(per_kind: int, num_users: int) -> tuple[list[ExampleVideo], Viewings]:
    """The videos, and who watched what."""
    videos = make_videos(per_kind)
    per_user = min(30, len(videos) // 4)
    return videos, viewings_by_taste(videos, num_users=num_users, per_user=per_user, seed=1)


if __name__ == "__main__":
    size = ("--per-kind", 6, "videos of each kind (6)")
    example_command(make_world, size=size, users=600, clip_s=3.0)
