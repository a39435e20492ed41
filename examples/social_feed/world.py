"""Makes the world of a social feed: short clips of things that people let fly, by many creators.

python examples/social_feed/world.py runs/social_feed
"""

from recsys.demo.example import DAYS, ExampleVideo, Viewings, example_command, viewings_by_taste
from recsys.demo.names import creator_name

THINGS = {
    "balloons": "Red balloon",
    "parcels": "Blue parcel",
    "doughnuts": "Yellow doughnut",
    "kites": "Green kite",
    "planes": "White plane",
    "paper hats": "Purple paper hat",
}
"""By topic; their order is that of what clips can show."""
WAYS = ("heading east over", "heading west over", "coming down in", "taking off from")
PLACES = ("Lisbon", "Oslo", "Cairo", "Lima", "Kyoto", "Accra", "Delhi", "Quito", "Haifa", "Rome")
ABROAD = {
    ("balloons", 3): ("بالون أحمر يقلع من القاهرة", "ليلى حداد", "CAIRO"),
    ("kites", 2): ("עפיפון ירוק נוחת בחיפה", "נועה לוי", "HAIFA"),
    ("planes", 0): ("白色飞机向东飞越北京", "王小雨", "BEIJING"),
}
"""Titles and creators of other scripts, by topic and way."""


def make_videos(per_kind: int) -> list[ExampleVideo]:
    """`per_kind` videos of each thing and each way that it flies."""
    videos = []
    for appearance, (topic, thing) in enumerate(THINGS.items()):
        for motion, way in enumerate(WAYS):
            for number in range(per_kind):
                place = PLACES[(number + 3 * motion + appearance) % len(PLACES)]
                told = (f"{thing} {way} {place}", creator_name(4 * appearance + number % 4), place)
                title, creator, text = ABROAD.get((topic, motion), told) if not number else told
                videos.append(
                    ExampleVideo(
                        title=title,
                        creator=creator,
                        topic=topic,
                        appearance=appearance,
                        motion=motion,
                        text=text,
                        uploaded_day=DAYS * 0.9 * number / per_kind,
                    )
                )
    return videos


def make_world(per_kind: int, num_users: int) -> tuple[list[ExampleVideo], Viewings]:
    """The videos, and who watched what."""
    videos = make_videos(per_kind)
    per_user = min(30, len(videos) // 4)
    return videos, viewings_by_taste(videos, num_users=num_users, per_user=per_user)


if __name__ == "__main__":
    size = ("--per-kind", 7, "videos of each kind (7)")
    example_command(make_world, size=size, users=600, clip_s=2.0)
