"""Images: resizing, moving pixels, colours; against plain NumPy, interpreted and compiled."""
import colorsys

import numpy as np
import pytest
from test_normalization import evaluate

import graphc as tf
from graphc import image
from graphc.errors import ArgumentError, ShapeError
from graphc.testing import check_gradients

X = np.random.default_rng(3).uniform(0, 1, (2, 5, 7, 3))
U8 = np.random.default_rng(4).integers(0, 256, (4, 6, 3)).astype("uint8")


def places(old, new, align, half):
    scale = (old - 1) / (new - 1) if align and new > 1 else old / new
    at = np.arange(new)
    return (at + 0.5) * scale - 0.5 if half else at * scale


def linear(x, axis, new, align, half):
    at = places(x.shape[axis], new, align, half)
    points = np.arange(x.shape[axis])
    return np.apply_along_axis(lambda line: np.interp(at, points, line), axis, x)


@pytest.mark.parametrize(("align", "half"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(9, 14), (3, 4), (5, 1)])
def test_bilinear(size, align, half):
    got, single = evaluate(lambda x: [image.resize_bilinear(x, size, align, half_pixel_centers=half),
                                      image.resize_bilinear(x[0], size, align, half_pixel_centers=half)], X)
    expected = linear(linear(X, 1, size[0], align, half), 2, size[1], align, half)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(single, got[0])


def test_nearest_neighbor_keeps_the_dtype():
    got, corners, same = evaluate(lambda x: [image.resize_nearest_neighbor(x, (8, 3)), image.resize_nearest_neighbor(
        x, (7, 11), align_corners=True), image.resize_images(x, (4, 6), method=1)], U8)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, U8[np.arange(8) // 2][:, [0, 2, 4]])
    np.testing.assert_array_equal(corners, U8[[0, 1, 1, 2, 2, 3, 3]][:, np.floor(np.arange(11) * 0.5 + 0.5).astype(int)])
    np.testing.assert_array_equal(same, U8)


def test_bicubic_is_exact_on_parabolas():
    ramp = np.arange(12.0)[None, :, None, None] ** 2 * np.ones((1, 12, 3, 1))
    got, = evaluate(lambda x: [image.resize_bicubic(x, (24, 3), half_pixel_centers=True)], ramp)
    inside = slice(4, -4)
    np.testing.assert_allclose(got[0, inside, 0, 0], places(12, 24, False, True)[inside] ** 2, rtol=1e-5)


def test_a_named_size():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, None, None, 3])
        y = image.resize_images(x, [4, 6])
        for shape in ((2, 5, 7, 3), (1, 8, 3, 3)):
            values = np.random.default_rng(1).uniform(size=shape).astype("f4")
            np.testing.assert_allclose(session.run(y, {x: values}), linear(linear(values, 1, 4, 0, 0), 2, 6, 0, 0), atol=1e-6)


@pytest.mark.parametrize("function", [
    lambda x: image.resize_bilinear(x, (7, 4)), lambda x: image.resize_bicubic(x, (3, 9)), image.per_image_standardization,
    lambda x: image.adjust_contrast(x, 1.7), lambda x: image.rot90(x, 3)])
def test_gradients(function):
    check_gradients(function, X[:1, :3, :4], order=1)


def test_moved_pixels():
    got = evaluate(lambda x: [
        image.flip_left_right(x), image.flip_up_down(x), image.transpose_image(x), *(image.rot90(x, k) for k in range(4)),
        image.crop_to_bounding_box(x, 1, 2, 3, 4), image.pad_to_bounding_box(x, 1, 2, 8, 9),
        image.resize_image_with_crop_or_pad(x, 3, 9), image.central_crop(x, 0.5)], X)
    expected = [X[:, :, ::-1], X[:, ::-1], X.swapaxes(1, 2), *(np.rot90(X, k, (1, 2)) for k in range(4)), X[:, 1:4, 2:6],
                np.pad(X, [(0, 0), (1, 2), (2, 0), (0, 0)]), np.pad(X[:, 1:4], [(0, 0), (0, 0), (1, 1), (0, 0)]),
                X[:, 1:4, 1:6]]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


def test_random_flips_choose_for_each_image():
    x = np.arange(40.0).reshape(20, 1, 2, 1)
    got, = evaluate(lambda x: [image.random_flip_left_right(x, seed=5)], x)
    flipped = got[:, 0, 0, 0] > got[:, 0, 1, 0]
    assert 0 < flipped.sum() < 20
    np.testing.assert_array_equal(np.sort(got, 2), x)


def test_colours():
    got = evaluate(lambda x: [
        image.rgb_to_grayscale(x), image.grayscale_to_rgb(x[..., :1]), image.rgb_to_hsv(x), image.hsv_to_rgb(x),
        image.adjust_hue(x, 0.3), image.adjust_saturation(x, 0.5), image.adjust_brightness(x, 0.2),
        image.adjust_contrast(x, 2.0), image.adjust_gamma(x, 2.0), image.total_variation(x), image.psnr(x, x * 0.5, 1.0)], X)
    flat = X.reshape(-1, 3)
    hsv = np.array([colorsys.rgb_to_hsv(*p) for p in flat])

    def back(h, s, v):
        return np.array([colorsys.hsv_to_rgb(*p) for p in np.stack([h, s, v], 1)]).reshape(X.shape)
    mean, steps = X.mean((1, 2), keepdims=True), [np.abs(np.diff(X, axis=a)).sum((1, 2, 3)) for a in (1, 2)]
    expected = [(X @ [0.2989, 0.587, 0.114])[..., None], np.repeat(X[..., :1], 3, -1), hsv.reshape(X.shape), back(*flat.T),
                back((hsv[:, 0] + 0.3) % 1, *hsv.T[1:]), back(hsv[:, 0], hsv[:, 1] * 0.5, hsv[:, 2]), X + 0.2,
                (X - mean) * 2 + mean, X**2, sum(steps),
                10 * np.log10(1 / np.mean((X / 2)**2, (1, 2, 3)))]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-9)


def test_integers_and_standardization():
    gray, bright, there, plain, scaled = evaluate(lambda x: [
        image.rgb_to_grayscale(x), image.adjust_brightness(x, 0.5), image.convert_image_dtype(x, tf.float32),
        image.per_image_standardization(x - x + 3), image.per_image_standardization(x)], U8)
    assert gray.dtype == bright.dtype == np.uint8
    assert np.abs(gray[..., 0] - U8 @ [0.2989, 0.587, 0.114]).max() <= 1
    assert np.abs(bright - np.minimum(U8 + 127.5, 255)).max() <= 1
    np.testing.assert_allclose(there, U8 / 255, rtol=1e-6)
    np.testing.assert_array_equal(plain, np.zeros(U8.shape))
    np.testing.assert_allclose(scaled, (U8 - U8.mean()) / U8.std(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("error", "call", "message"), [
    (ShapeError, lambda x: image.flip_left_right(x[0, 0]), "an image has 3 axes, images have 4"),
    (ShapeError, lambda x: image.rgb_to_grayscale(x[..., :2]), "it takes 3 channels"),
    (ShapeError, lambda x: image.pad_to_bounding_box(x, 0, 0, 4, 9), "the image does not fit"),
    (ShapeError, lambda x: image.crop_to_bounding_box(x, 3, 0, 4, 2), "slice"),
    (ArgumentError, lambda x: image.resize_images(x, [3]), "it is two numbers, height and width"),
    (ArgumentError, lambda x: image.resize_images(x, [3, 3], method=9), "there is no method 9"),
    (ArgumentError, lambda x: image.resize_bilinear(x, [3, 3], True, half_pixel_centers=True), "exclude each other"),
    (ArgumentError, lambda x: image.central_crop(x, 1.5), "the fraction is 1.5"),
])
def test_bad_arguments_are_named(error, call, message):
    with tf.Graph().as_default(), pytest.raises(error, match=message):
        call(tf.placeholder(tf.float32, [2, 5, 7, 3]))
