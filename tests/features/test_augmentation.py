import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from regraft.core.errors import UnknownName, UsageError
from regraft.features.augmentation import POLICIES, Augmentation, View, _coloured, count, draw_views, find
from regraft.network.preprocess import Preprocess
from regraft.network.workaround_torchvision_nms import ensure_torchvision

RULE = Preprocess(size=64, crop_share=0.8, background=(9, 99, 199))
NAMES = [f"{number:064x}" for number in range(30)]
STRONG = POLICIES["strong"]


def picture(height, width, seed=0):
    """Smooth waves of colour."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width][..., None] / max(height, width)
    waves = sum(np.sin(6 * (down * a + across * b) + c) for a, b, c in random.normal(size=(4, 3, 3)))
    return np.clip(127 + 40 * waves, 0, 255).astype(np.uint8)


def ramps(side=512):
    """A square whose red tells how far from the left a pixel is, whose green how far from the top."""
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    return np.stack([*np.meshgrid(ramp, ramp), np.zeros((side, side), np.uint8)], -1)


def positions(view):
    """Where each pixel of a view of the ramps comes from: x and y, -1 to 1 from edge to edge of the photograph."""
    return view[..., :2] / 127.5 - 1


def middles(size):
    """Where the middle of each pixel of a square lies: x and y, -1 to 1 from edge to edge."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    return np.stack(np.meshgrid(axis, axis), -1)


def affine(view, used=slice(16, 48)):
    """The (2, 2) matrix and the shift that took the view's places from the ramps, fitted to its middle."""
    from_pixels = middles(len(view))[used, used].reshape(-1, 2)
    in_photograph = positions(view)[used, used].reshape(-1, 2)
    (*matrix, shift), *_ = np.linalg.lstsq(np.c_[from_pixels, np.ones(len(from_pixels))], in_photograph, rcond=None)
    return np.array(matrix).T, shift


def affines(augmentation, share=RULE.crop_share):
    """The affine maps of one view of many images, in units of the clean square."""
    view = View(augmentation, 0, 1)
    maps = [affine(draw_views(ramps(), RULE, name, [view])[0]) for name in NAMES]
    return np.array([matrix for matrix, _ in maps]) / share, np.array([shift for _, shift in maps]) / share


# What a view shows


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(300, 400), (700, 500), (90, 64), (40, 33)])
@pytest.mark.parametrize("share", [0.8, 1.0])
def test_a_view_that_changes_nothing_is_the_clean_square(resize, size, share):
    rule = Preprocess(size=64, resize=resize, crop_share=share, background=(9, 99, 199))
    view, clean = draw_views(picture(*size), rule, NAMES[0], [View(Augmentation(), 0, 1)])[0], rule(picture(*size))
    difference = np.abs(view.astype(int) - clean)
    assert np.quantile(difference, 0.9) <= 4  # a padded photograph has a sharp edge, which lies between other pixels


def test_flipping_alone_mirrors_the_clean_view_in_its_share_of_the_images():
    always, never, half = (View(Augmentation(flip=chance), 0, 1) for chance in (1, 0, 0.5))
    mirrored = 0
    for name in NAMES:
        mirror, plain, either = draw_views(picture(90, 90), RULE, name, [always, never, half])
        np.testing.assert_allclose(mirror.astype(int), plain[:, ::-1], atol=1)
        same = np.abs(either.astype(int) - plain).mean() < 1
        assert same or np.abs(either.astype(int) - mirror).mean() < 1
        mirrored += not same
    assert 5 <= mirrored <= 25  # of 30; less often than once in 20,000 draws it is not


def test_rotation_alone_turns_about_the_middle_up_to_its_angle_either_way():
    matrices, shifts = affines(Augmentation(rotation=30))
    np.testing.assert_allclose(shifts, 0, atol=0.01)
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    for matrix, angle in zip(matrices, np.radians(angles), strict=True):
        turned = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        np.testing.assert_allclose(matrix, turned, atol=0.01)
    assert -31 < angles.min() < -20
    assert 20 < angles.max() < 31


def test_shift_alone_moves_along_both_axes_up_to_its_share_of_the_square():
    matrices, shifts = affines(Augmentation(shift=0.05))
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=0.01)
    sides = shifts / 2  # the square is 2 wide
    assert (np.abs(sides) < 0.055).all()
    assert (sides.min(0) < -0.03).all()
    assert (sides.max(0) > 0.03).all()


def test_shear_alone_slants_up_to_its_angle():
    matrices, shifts = affines(Augmentation(shear=20))
    np.testing.assert_allclose(shifts, 0, atol=0.01)
    slants = np.degrees(np.arctan(matrices[:, 0, 1]))
    assert -21 < slants.min() < -13
    assert 13 < slants.max() < 21
    matrices[:, 0, 1] = 0
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), matrices.shape), atol=0.01)


def test_zoom_alone_stretches_each_axis_by_itself():
    matrices, shifts = affines(Augmentation(zoom=0.2))
    np.testing.assert_allclose(shifts, 0, atol=0.01)
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0, atol=0.01)
    stretches = matrices[:, [0, 1], [0, 1]]
    assert (stretches.min(0) < 0.87).all()
    assert (stretches.max(0) > 1.13).all()
    assert (np.abs(stretches - 1) < 0.21).all()
    assert np.abs(stretches[:, 0] - stretches[:, 1]).max() > 0.1


def test_crop_alone_shows_a_square_of_at_least_its_share_anywhere_in_the_photograph():
    matrices, shifts = affines(Augmentation(crop=0.3))
    sides = matrices[:, 0, 0]
    for matrix, side in zip(matrices, sides, strict=True):
        np.testing.assert_allclose(matrix, side * np.eye(2), atol=0.01)
    assert 0.3 - 0.02 < (sides**2).min() < 0.45
    assert 0.85 < (sides**2).max() < 1.02
    reach = RULE.crop_share * (np.abs(shifts) + sides[:, None])  # how far the square's edges lie from the middle
    assert (reach < 1.02).all()
    assert (shifts.min(0) < -0.2).all()
    assert (shifts.max(0) > 0.2).all()


@pytest.mark.parametrize("name", NAMES[:6])
def test_a_view_that_reaches_over_the_edge_shows_the_mirror_image(name):
    near, far = (draw_views(ramps(), RULE, name, [View(Augmentation(shift=shift), 0, 1)])[0] for shift in (0.05, 0.5))
    meant = RULE.crop_share * middles(RULE.size) + 10 * affine(near)[1]  # what is drawn does not hang on the range
    mirrored = 1 - np.abs((meant + 1) % 4 - 2)  # back and forth between -1 and 1
    assert (np.abs(meant) > 1).any()
    np.testing.assert_allclose(positions(far), mirrored, atol=0.06)  # a pixel is 0.025 wide


@pytest.mark.parametrize(
    ("brightness", "contrast", "saturation"), [(1.2, 1, 1), (1, 0.7, 1), (1, 1, 1.4), (0.9, 1.2, 0.7)]
)
def test_colour_changes_as_torchvision_changes_it(brightness, contrast, saturation):
    ensure_torchvision()
    from torchvision.transforms.v2 import functional

    pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1) / 4 + 90  # nothing is cut off on the way
    theirs = functional.adjust_brightness(pixels / 255, brightness)
    theirs = functional.adjust_saturation(functional.adjust_contrast(theirs, contrast), saturation) * 255
    ours = _coloured(pixels, brightness, contrast, saturation)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=0.51)


def test_colour_alone_moves_no_pixel_and_changes_images_differently():
    grey = np.full((80, 80, 3), 100, np.uint8)
    views = np.array([draw_views(grey, RULE, name, [View(Augmentation(colour=0.3), 0, 1)])[0] for name in NAMES])
    assert (views == views[:, :1, :1]).all()
    levels = views[:, 0, 0, 0]
    assert 69 <= levels.min() < 85
    assert 115 < levels.max() <= 131


def test_what_is_too_bright_or_too_dark_is_cut_off_not_wrapped():
    halves = np.zeros((80, 80, 3), np.uint8)
    halves[:, 40:] = 255
    for name in NAMES:
        view = draw_views(halves, RULE, name, [View(Augmentation(colour=1), 0, 1)])[0].astype(int)
        assert (view[:, -1] >= view[:, 0]).all()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 2), (8, 8), (333, 500)])
def test_every_image_has_views_of_the_networks_size(policy, resize, size):
    rule = Preprocess(size=33, resize=resize)
    image = picture(*size)
    before = image.copy()
    views = draw_views(image, rule, NAMES[0], [View(POLICIES[policy], 0, number) for number in (1, 2, 3)])
    assert len(views) == 3
    for view in views:
        assert (view.shape, view.dtype, view.flags.c_contiguous) == ((33, 33, 3), np.uint8, True)
    np.testing.assert_array_equal(image, before)


def test_an_image_that_may_not_be_written_to_has_views():
    image = picture(50, 50)
    image.setflags(write=False)
    assert draw_views(image, RULE, NAMES[0], [View(STRONG, 0, 1)])[0].flags.writeable


# What it hangs on


def test_a_view_hangs_on_its_image_seed_and_number_alone():
    image, views = picture(90, 120), [View(STRONG, 7, number) for number in range(1, 6)]
    together = draw_views(image, RULE, NAMES[0], views)
    np.random.seed(5)
    torch.manual_seed(5)
    draw_views(image, RULE, NAMES[1], views)
    for view, expected in zip(reversed(views), reversed(together), strict=True):
        np.testing.assert_array_equal(draw_views(image, RULE, NAMES[0], [view])[0], expected)


def test_another_image_seed_or_number_draws_another_view():
    image = picture(90, 120)
    drawn = [
        draw_views(image, RULE, name, [View(STRONG, seed, number)])[0].tobytes()
        for name in NAMES[:3]
        for seed in (0, 1)
        for number in (1, 2, 3)
    ]
    assert len(set(drawn)) == 18


def test_no_global_generator_is_touched():
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.random(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draw_views(picture(90, 120), RULE, NAMES[0], [View(STRONG, 0, 1)])
    assert (np.random.random(), torch.rand(1)) == expected


def test_views_are_the_same_on_any_thread_and_any_number_of_them():
    images = [picture(90, 120, seed) for seed in range(8)]
    views = [View(STRONG, 0, number) for number in (1, 2)]

    def views_of(number):
        return np.array(draw_views(images[number], RULE, NAMES[number], views))

    expected = [views_of(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for drawn, meant in zip(pool.map(views_of, list(range(8)) * 3), expected * 3, strict=True):
            np.testing.assert_array_equal(drawn, meant)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        np.testing.assert_array_equal(views_of(3), expected[3])
    finally:
        torch.set_num_threads(threads)


def test_the_key_is_16_hexadecimal_digits_that_all_that_decides_a_view_changes():
    view = View(POLICIES["standard"], 0, 1)
    others = [
        *(dataclasses.replace(view, **change) for change in ({"seed": 1}, {"number": 2})),
        *(
            dataclasses.replace(view, augmentation=dataclasses.replace(view.augmentation, **{field.name: 0.31}))
            for field in dataclasses.fields(Augmentation)
        ),
    ]
    keys = [view.key, *(other.key for other in others)]
    assert len(set(keys)) == 10
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_whole_number_and_the_same_with_a_point_have_one_key():
    assert View(Augmentation(rotation=40), 0, 1).key == View(find("rotation=40"), 0, 1).key


# Choosing


def test_a_policy_is_found_by_its_name_by_parameters_or_by_both():
    assert find("strong") == POLICIES["strong"]
    assert find("rotation=40,shift=0.2") == Augmentation(rotation=40, shift=0.2)
    assert find("standard, rotation = 40") == dataclasses.replace(POLICIES["standard"], rotation=40)
    assert find({"flip": 0.5, "crop": 0.3}) == Augmentation(flip=0.5, crop=0.3)


@pytest.mark.parametrize("wrong", ["standart", "", "rotate=4", "light,strong", "rotation=much", {"rotate": 4}])
def test_a_policy_that_is_none_is_refused(wrong):
    with pytest.raises(UsageError):
        find(wrong)


def test_the_policy_or_parameter_that_was_meant_is_guessed():
    with pytest.raises(UnknownName, match="standard"):
        find("standart")
    with pytest.raises(UnknownName, match="rotation"):
        find("rotaton=4")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Augmentation)])
@pytest.mark.parametrize("value", [-0.1, 1000, math.nan, math.inf, "much", None])
def test_a_parameter_out_of_its_range_is_refused_by_name(field, value):
    with pytest.raises(UsageError, match=field):
        Augmentation(**{field: value})


def test_a_stronger_policy_reaches_as_far_in_everything():
    light, standard, strong = (dataclasses.asdict(POLICIES[name]) for name in ("light", "standard", "strong"))
    for weaker, stronger in ((light, standard), (standard, strong)):
        assert weaker.pop("crop") > stronger["crop"]
        assert all(value <= stronger[name] for name, value in weaker.items())


# How many


@pytest.mark.parametrize(
    ("per_class", "views"),
    [([1, 1], 16), ([5] * 7, 16), ([10, 10], 16), ([20, 20], 8), ([40, 40], 4), ([80, 80], 0), ([5000] * 10, 0)],
)
def test_few_images_have_many_views_and_many_have_none(per_class, views):
    assert count(per_class) == views


def test_more_images_never_have_more_views():
    counts = [count([images] * 3) for images in range(200)]
    assert counts == sorted(counts, reverse=True)


def test_one_class_of_another_size_changes_nothing():
    assert count([20, 20, 1]) == count([20, 20, 9000]) == count([20, 20, 20])
