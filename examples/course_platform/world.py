"""Makes the world of a course platform: geometry in courses, and learners who take them in order.

python examples/course_platform/world.py runs/course_platform
"""

import numpy as np

from recsys.demo.example import DAYS, ExampleVideo, Viewings, example_command

SHAPES = ("Circles", "Squares", "Rings", "Diamonds", "Crosses", "Triangles")
"""In the order of what clips can show."""
LEVELS = {
    "first steps": ("What they are", "Names of the parts", "Drawing one", "Measuring one"),
    "in motion": ("Moving right", "Moving left", "Moving down", "Moving up"),
    "proofs": ("Symmetry", "Area", "Outline", "The last theorem"),
}
"""Courses of each shape, each after the one before, with their lessons."""
TEACHERS = ("Ada Abara", "Bo Berg", "Chen Castro", "Dalia Dietz", "Emre Endo", "Femi Fontaine")
FINISHES, STAYS = 0.85, 0.9
"""How likely a learner finishes a lesson that they began, and goes on after it."""


def make_videos(num_shapes: int) -> list[ExampleVideo]:
    """The lessons, each of which requires the one before it, over the courses of a shape."""
    videos: list[ExampleVideo] = []
    for appearance, shape in enumerate(SHAPES[:num_shapes]):
        before: tuple[int, ...] = ()
        for level, lessons in LEVELS.items():
            for number, lesson in enumerate(lessons):
                videos.append(
                    ExampleVideo(
                        title=f"{shape}: {lesson[0].lower()}{lesson[1:]}",
                        creator=TEACHERS[appearance],
                        topic=shape.lower(),
                        appearance=appearance,
                        motion=number,
                        text=lesson,
                        captions=(f"{shape}: {level}, lesson {number + 1}.", f"{lesson}."),
                        course=f"{shape}: {level}",
                        lesson=number + 1,
                        requires=before,
                    )
                )
                before = (len(videos) - 1,)
    return videos


def learn(videos: list[ExampleVideo], *, num_users: int, seed: int = 0) -> Viewings:
    """Learners begin with the shape that they like best, and with another when they stop."""
    rng = np.random.default_rng(seed)
    topics = list(dict.fromkeys(video.topic for video in videos))
    lessons = {t: [i for i, video in enumerate(videos) if video.topic == t] for t in topics}
    rows = []
    for user in range(num_users):
        day = rng.uniform(0, DAYS * 0.6)
        favourite = rng.integers(len(topics))
        for step in (0, 1, 3):  # who likes circles takes squares next, as it happens
            for video in lessons[topics[(favourite + step) % len(topics)]]:
                finished = rng.random() < FINISHES
                if day < DAYS:
                    rows.append((user, video, day, finished, finished and rng.random() < 0.4))
                day += rng.exponential(0.5)
                if not finished or rng.random() > STAYS:
                    break
    return Viewings(*(np.array(column) for column in zip(*rows, strict=True)))


def make_world(num_shapes: int, num_users: int) -> tuple[list[ExampleVideo], Viewings]:
    """The lessons, and who took which."""
    videos = make_videos(num_shapes)
    return videos, learn(videos, num_users=num_users)


if __name__ == "__main__":
    size = ("--shapes", 6, "of six, each with three courses")
    example_command(make_world, size=size, users=900, clip_s=3.0)
