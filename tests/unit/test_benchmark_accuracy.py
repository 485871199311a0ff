"""OKS average precision, the protocols and the intervals, on cases computed by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose.benchmark import oks
from edgepose.benchmark.accuracy import CROP_FACTOR, PROTOCOLS, cases_of, person_region
from edgepose.benchmark.coco import AnnotatedImage, Person, check_images, read_annotations
from edgepose.benchmark.oks import Case, Figures, interval
from edgepose.datatypes import Poses
from edgepose.errors import SourceError, SourceNotFoundError
from tests.coco import (
    PERSON_CATEGORY,
    annotation,
    case_of,
    found,
    joined,
    match,
    person_at,
    shift_for,
    write_coco,
)

pytest.importorskip("pycocotools")

NO_POSES = Poses.empty()


def random_cases(seed: int, count: int = 12) -> tuple[list[Case], list[Poses]]:
    """Return images with 0 to 3 persons, and poses from good to invented."""
    generator = np.random.default_rng(seed)
    cases, answers = [], []
    for _ in range(count):
        persons = [
            person_at(
                300.0 * place,
                0.0,
                labelled=() if generator.random() < 0.15 else range(17),
                crowd=bool(generator.random() < 0.1),
            )
            for place in range(int(generator.integers(0, 4)))
        ]
        scores = [float(score) for score in generator.permutation(5)[:3] / 5 + 0.2]
        poses = [
            found(
                person if generator.random() < 0.8 else person_at(2000.0, 2000.0),
                # Few values, so that poses of several images share a score.
                score=scores[place],
                shift_px=float(generator.exponential(8.0)),
            )
            for place, person in enumerate(persons)
            if generator.random() < 0.85
        ]
        cases.append(case_of(*persons))
        answers.append(joined(*poses) if poses else NO_POSES)
    return cases, answers


def test_match_perfect_detector_has_ap_1() -> None:
    persons = [person_at(50.0 * place) for place in range(5)]
    figures = match([case_of(p) for p in persons], [found(p) for p in persons]).figures()
    assert figures == pytest.approx((100.0, 100.0, 100.0, 100.0))


def test_match_ap_falls_with_distance() -> None:
    persons = [person_at(side=40.0 * place) for place in range(1, 9)]
    cases = [case_of(person) for person in persons]
    aps = [
        match(cases, [found(person, shift_px=shift) for person in persons]).figures().ap
        for shift in (0.0, 3.0, 6.0, 12.0, 200.0)
    ]
    assert aps[0] == pytest.approx(100.0)
    assert aps == sorted(aps, reverse=True)
    assert len(set(aps)) == len(aps)
    assert aps[-1] == 0.0


def test_match_without_poses_has_ap_0() -> None:
    evaluation = match([case_of(person_at()), case_of(person_at())], [NO_POSES, NO_POSES])
    assert evaluation.figures() == Figures(0.0, 0.0, 0.0, 0.0)


def test_match_one_right_and_one_wrong_pose() -> None:
    """At recall 0 to 0.50, 51 of the 101 points, precision is 1 or 1/2; beyond it is 0."""
    person = person_at()
    cases = [case_of(person), case_of(person)]
    right, wrong = found(person, score=0.9), found(person, score=0.8, shift_px=500.0)
    assert match(cases, [right, wrong]).figures() == pytest.approx((5100 / 101,) * 3 + (50.0,))
    wrong_first = found(person, score=0.95, shift_px=500.0)
    assert match(cases, [right, wrong_first]).figures() == pytest.approx(
        (5100 / 202,) * 3 + (50.0,)
    )


@pytest.mark.parametrize(
    ("similarity", "thresholds"), [(0.49, 0), (0.51, 1), (0.72, 5), (0.77, 6), (0.96, 10)]
)
@pytest.mark.parametrize("keypoint", [0, 11])
def test_match_one_keypoint_at_known_oks(similarity: float, thresholds: int, keypoint: int) -> None:
    person = person_at(labelled=[keypoint])
    pose = found(person, shift_px=shift_for(similarity, keypoint, person.area))
    figures = match([case_of(person)], [pose]).figures()
    assert figures.ap == pytest.approx(thresholds * 10)
    assert figures.ap50 == pytest.approx(100 * (thresholds >= 1))
    assert figures.ap75 == pytest.approx(100 * (thresholds >= 6))
    assert figures.ar == pytest.approx(thresholds * 10)


@pytest.mark.parametrize("other", [person_at(600.0, labelled=()), person_at(600.0, crowd=True)])
def test_match_pose_on_ignored_person_is_not_wrong(other: Person) -> None:
    person = person_at()
    on_other = found(person_at(600.0), score=0.99)
    evaluation = match([case_of(person, other)], [joined(found(person), on_other)])
    assert evaluation.figures().ap == pytest.approx(100.0)
    assert match([case_of(person)], [joined(found(person), on_other)]).figures().ap < 60


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_repeated_images(seed: int) -> None:
    """The figures of images chosen several times are those of a data set with copies."""
    cases, answers = random_cases(seed)
    evaluation = match(cases, answers)
    weights = np.random.default_rng(seed).integers(0, 4, len(cases))
    repeated = np.repeat(np.arange(len(cases)), weights).tolist()
    copies = match([cases[i] for i in repeated], [answers[i] for i in repeated])
    assert 0.0 < copies.figures().ap < 100.0
    assert evaluation.figures(repeated) == pytest.approx(tuple(copies.figures()))
    # What was chosen before does not matter.
    assert evaluation.figures() == match(cases, answers).figures()


def test_figures_of_crops_of_one_image_together() -> None:
    cases, answers = random_cases(3, count=4)
    evaluation = oks.Evaluation([cases[:2], cases[2:]], [answers[:2], answers[2:]])
    both = match(cases[2:] * 2, answers[2:] * 2)
    assert evaluation.figures([1, 1]) == pytest.approx(tuple(both.figures()))


def test_figures_without_person_are_nan() -> None:
    evaluation = match([case_of(person_at()), case_of()], [found(person_at()), NO_POSES])
    assert np.isnan(evaluation.figures([1, 1])).all()
    assert interval(evaluation.resampled(50)[:, 0]) == (100.0, 100.0)


def test_interval_is_reproducible_and_contains_figure() -> None:
    evaluation = match(*random_cases(1, count=40))
    resampled = evaluation.resampled(500)
    assert resampled.shape == (500, 4)
    assert np.array_equal(resampled, evaluation.resampled(500))
    for index, figure in enumerate(evaluation.figures()):
        low_high = interval(resampled[:, index])
        assert low_high is not None
        assert low_high[0] < figure < low_high[1]


def test_interval_narrows_with_more_images() -> None:
    widths = []
    for count in (10, 160):
        evaluation = match(*random_cases(2, count=count))
        low_high = interval(evaluation.resampled(500)[:, 0])
        assert low_high is not None
        widths.append(low_high[1] - low_high[0])
    assert widths[1] < widths[0] / 2


def test_interval_of_one_image_is_none() -> None:
    person = person_at()
    evaluation = match([case_of(person)], [found(person)])
    assert interval(evaluation.resampled()[:, 0]) is None


def test_difference_interval_is_paired() -> None:
    """A small difference of two detectors that fail on the same images is found."""
    cases, answers = random_cases(5, count=60)
    worse = [
        Poses(p.keypoints + np.float32(2.0), p.keypoint_scores, p.scores, p.boxes_xyxy)
        for p in answers
    ]
    first, second = match(cases, answers), match(cases, worse)
    ap_first, ap_second = (each.resampled(500)[:, 0] for each in (first, second))
    paired, alone = interval(ap_second - ap_first), interval(ap_first)
    assert paired is not None
    assert alone is not None
    assert second.figures().ap < first.figures().ap
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 2


def test_match_prints_nothing_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    match([case_of(person_at())], [found(person_at())])
    assert capsys.readouterr().out == ""


ONE, TWO = person_at(), person_at(400.0)
UNLABELLED, CROWD = person_at(600.0, labelled=()), person_at(600.0, crowd=True)


@pytest.mark.parametrize(
    ("persons", "single", "crops"),
    [
        ((ONE,), 1, 1),
        ((ONE, TWO), 0, 2),
        ((ONE, UNLABELLED), 0, 1),
        ((ONE, CROWD), 0, 1),
        ((UNLABELLED,), 0, 0),
        ((CROWD,), 0, 0),
        ((), 0, 0),
    ],
)
def test_cases_of_each_protocol(persons: tuple[Person, ...], single: int, crops: int) -> None:
    image = AnnotatedImage(1, "a.jpg", persons=persons)
    counts = {name: len(cases_of(image, protocol)) for name, protocol in PROTOCOLS.items()}
    assert counts == {"single": single, "whole": single, "multi": 1, "crops": crops}
    assert cases_of(image, PROTOCOLS["multi"]) == (Case(None, persons),)
    for case in cases_of(image, PROTOCOLS["crops"]):
        assert case.truths == (case.around,)


def test_person_region_is_square_around_box() -> None:
    person = Person((10.0, 20.0, 40.0, 80.0), 1.0, ONE.keypoints)
    region = person_region(person, (192, 192))
    assert (region.x_min, region.x_max) == (30.0 - 50.0, 30.0 + 50.0)
    assert (region.y_min, region.y_max) == (60.0 - 50.0, 60.0 + 50.0)
    assert CROP_FACTOR == 1.25


def test_person_region_has_shape_of_input() -> None:
    person = Person((10.0, 20.0, 40.0, 80.0), 1.0, ONE.keypoints)
    region = person_region(person, (480, 360))
    assert region.y_max - region.y_min == pytest.approx(100.0)
    assert region.x_max - region.x_min == pytest.approx(100.0 * 480 / 360)


def test_read_annotations_in_order_of_ids(tmp_path: Path) -> None:
    path = write_coco(
        tmp_path / "a.json", [("b.jpg", (64, 48)), ("a.jpg", (32, 32))], [(2, ONE), (1, CROWD)]
    )
    content = json.loads(path.read_text())
    content["images"].reverse()
    content["categories"].append({"id": 7, "name": "dog", "supercategory": "animal"})
    content["annotations"].append(
        {"id": 9, "image_id": 1, "category_id": 7, "area": 4.0, "bbox": [0, 0, 2, 2]}
    )
    path.write_text(json.dumps(content))
    first, second = read_annotations(path)
    assert [(each.file_name, each.width, each.height) for each in (first, second)] == [
        ("b.jpg", 64, 48),
        ("a.jpg", 32, 32),
    ]
    assert [(p.box_xywh, bool(p.crowd)) for p in first.persons] == [(CROWD.box_xywh, True)]
    assert [(p.box_xywh, p.keypoints) for p in second.persons] == [(ONE.box_xywh, ONE.keypoints)]


def changed(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [annotation(5, 1, ONE)],
        "categories": [PERSON_CATEGORY],
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "expected COCO person keypoint annotations"),
        ("[]", "expected COCO person keypoint annotations"),
        ('{"images": []}', "missing required field"),
        (changed(categories=[{"id": 1, "name": "person"}]), "no category has the 17 keypoints"),
        (
            changed(categories=[{"id": 1, "name": "hand", "keypoints": ["wrist", "thumb"]}]),
            "no category has the 17 keypoints",
        ),
        (changed(annotations=[]), "no person with a labelled keypoint"),
        (changed(annotations=[annotation(5, 1, CROWD)]), "no person with a labelled keypoint"),
        (changed(annotations=[annotation(5, 2, ONE)]), "annotation 5 is of image 2"),
        (
            changed(annotations=[annotation(5, 1, ONE, keypoints=[1, 2, 2])]),
            "annotation 5 has 3 keypoint numbers, expected 51",
        ),
        (changed(annotations=[annotation(5, 1, ONE, area=0)]), "an area of 0"),
        (changed(images=[{"id": 1, "file_name": "a.jpg"}] * 2), "two images have the same id"),
    ],
)
def test_read_annotations_invalid_file(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SourceError, match=r"^\S+a\.json: ") as caught:
        read_annotations(path)
    assert message in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"a\.json: no such file"):
        read_annotations(tmp_path / "a.json")
    images = tuple(AnnotatedImage(number, f"{number}.jpg") for number in range(6))
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        check_images(images, tmp_path / "images")
    (tmp_path / "2.jpg").touch()
    with pytest.raises(SourceNotFoundError) as caught:
        check_images(images, tmp_path)
    assert "5 of the 6 annotated images are missing, such as 0.jpg;" in str(caught.value)
