"""Codec: tiles and edges of a torus are not visible in decoded pictures, and a fitted decoder is restored."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ad_service.core.backbone import codec
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Shape
from ad_service.core.steps import run
from tests.support.tiny_models import SHIPPED, backbone, end, noise, texture

LARGE = 1 << 20


def decoded(model: Model, canvas: Tensor, shape: Shape, side: int = LARGE) -> Tensor:
    """The picture, assembled from its tiles; each pixel comes from one tile."""
    factor = model.family.factor
    picture = torch.full((3, shape.height * factor, shape.width * factor), torch.nan)
    for y, x, tile in codec.decode(model, canvas, shape, side):
        place = picture[:, y : y + tile.shape[1], x : x + tile.shape[2]]
        assert place.shape == tile.shape
        assert bool(place.isnan().all())
        place.copy_(tile)
    return picture


def textured(model: Model, height: int, width: int, *, tiling: bool = True) -> Tensor:
    """Latents of a texture, as a decoder is trained for."""
    factor = model.family.factor
    picture = texture(height * factor, width * factor, tiling=tiling)
    return codec.encode_canvas(model, picture, Shape(height, width, tiling, tiling))


def test_an_encoding_in_one_pass_can_be_stopped_before_each_convolution() -> None:
    model, checks = backbone("sd15"), 0

    def work() -> Generator[None, None, Tensor]:
        yield
        return codec.encode(model, texture(64, 64))

    def count() -> None:
        nonlocal checks
        checks += 1

    def stop() -> None:
        raise KeyboardInterrupt

    expected = run(work(), check=count)
    assert checks > 10
    with pytest.raises(KeyboardInterrupt):
        run(work(), check=stop)
    assert torch.equal(codec.encode(model, texture(64, 64)), expected)
    assert not [layer for layer in model.vae.modules() if layer._forward_pre_hooks]


# ---------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(("family", "size"), [("pocket", (64, 96)), ("sd15", (64, 128)), ("sdxl", (64, 64))])
def test_latents_are_the_scaled_means_of_the_vae(family: str, size: tuple[int, int]) -> None:
    model = backbone(family)
    picture = texture(*size)
    with torch.no_grad():
        mean = model.vae.encode(picture[None] * 2 - 1).latent_dist.mean[0]
    z = codec.encode(model, picture)
    assert z.shape[1:] == (size[0] // model.family.factor, size[1] // model.family.factor)
    torch.testing.assert_close(z, mean * model.vae.config.scaling_factor)


@pytest.mark.parametrize("family", ["pocket", "sd15", "sdxl"])
def test_a_tile_is_decoded_as_the_vae_does(family: str) -> None:
    model = backbone(family)
    z = noise(1, model.unet.config.in_channels, 6, 9)
    with torch.no_grad():
        expected = model.vae.decode(z / model.vae.config.scaling_factor).sample / 2 + 0.5
        torch.testing.assert_close(codec.decode_tile(model, z), expected)


def test_the_shift_factor_is_subtracted_and_added(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = backbone("pocket"), texture(32, 32)
    before = codec.encode(model, picture)
    plain = codec.decode_tile(model, before[None])
    monkeypatch.setattr(model.vae, "_internal_dict", type(model.vae.config)({**model.vae.config, "shift_factor": 0.5}))
    after = codec.encode(model, picture)
    torch.testing.assert_close(after, before - 0.5 * model.vae.config.scaling_factor)
    torch.testing.assert_close(codec.decode_tile(model, after[None]), plain)


def test_the_shipped_codec_reproduces_a_texture() -> None:
    if SHIPPED == "pocket":
        pytest.skip("its weights are not here")
    model, picture = backbone(SHIPPED), texture(96, 128, tiling=True)
    shape = Shape(24, 32, True, True)
    back = decoded(model, codec.encode_canvas(model, picture, shape), shape)
    assert float((back - picture).abs().mean()) < 0.05


# ---------------------------------------------------------------------------------------------- tiles


def frozen_norms(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that are the same everywhere, so that a tile can only differ by what it does not see."""
    norms = [m for m in model.vae.decoder.modules() if isinstance(m, nn.GroupNorm)]
    frozen = codec._Norms(norms, 2)
    frozen.frozen = True
    for norm in norms:
        frozen.sums[norm] = [torch.tensor([[[0.0]], [[1.0]]])]
    forward = codec._Norms.forward
    monkeypatch.setattr(codec._Norms, "forward", lambda _, norm, x: forward(frozen, norm, x))


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        (Shape(40, 56, True, True), 24),
        (Shape(40, 56, False, True), 32),
        (Shape(50, 33, False, False), 17),
        (Shape(3, 40, True, False), 16),
    ],
)
def test_tiles_show_the_same_picture_as_one_piece(shape: Shape, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("pocket")
    frozen_norms(model, monkeypatch)
    canvas = noise(16, shape.height, shape.width)
    whole, tiled = (decoded(model, canvas, shape, s) for s in (LARGE, side))
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [SHIPPED, "sd15"])
def test_borders_of_tiles_are_not_visible(name: str) -> None:
    model, side, shape = backbone(name), 10, Shape(20, 20, True, True)
    canvas, factor = textured(model, 20, 20), model.family.factor
    whole, tiled = (decoded(model, canvas, shape, s) for s in (LARGE, side))
    wrong = (tiled - whole).abs().amax(0)
    contrast = float(whole.std())
    assert float(wrong.mean()) < 0.15 * contrast
    for axis in (0, 1):
        steps = (tiled - whole).diff(dim=axis + 1).abs().mean((0, 2 - axis))  # what the tiles add to each border
        at = torch.arange(side * factor, shape.height * factor, side * factor) - 1
        inside = torch.ones(len(steps), dtype=torch.bool)
        inside[at] = False
        assert float(steps[at].max()) <= max(2 * float(steps[inside].mean()), 0.01 * contrast)


def test_tiles_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shape = backbone(SHIPPED), Shape(70, 80, True, True)
    canvas, small = textured(model, 70, 80), codec.MARGIN * 2 + 20
    wanted, decode_tile = decoded(model, canvas, shape, 20), codec.decode_tile

    def little_memory(model: Model, z: Tensor) -> Tensor:
        if max(z.shape[2:]) > small:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_tile(model, z)

    monkeypatch.setattr(codec, "decode_tile", little_memory)
    torch.testing.assert_close(decoded(model, canvas, shape, 80), wanted)
    small = 8
    with pytest.raises(torch.OutOfMemoryError):
        decoded(model, canvas, shape, 80)


def test_a_large_swatch_is_encoded_in_tiles() -> None:
    model, picture = backbone(SHIPPED), texture(320, 400)
    whole = codec.encode(model, picture)
    tiled = codec.encode(model, picture, largest_untiled=64)
    assert tiled.shape == whole.shape
    assert float((tiled - whole).abs().mean()) < 0.05 * float(whole.std())


def test_tiles_share_the_statistics_of_the_whole_canvas() -> None:
    """A canvas of a dark and a bright half keeps their difference, though each tile sees one of them."""
    model, shape = backbone(SHIPPED), Shape(16, 128, False, False)
    picture = texture(64, 512)
    picture[:, :, 256:] = picture[:, :, 256:] * 0.3 + 0.7
    canvas = codec.encode(model, picture)
    whole, tiled = (decoded(model, canvas, shape, s) for s in (LARGE, 32))
    steps = [float(p[:, :, 256:].mean() - p[:, :, :256].mean()) for p in (whole, tiled)]
    assert steps[1] == pytest.approx(steps[0], abs=0.03)


@pytest.mark.parametrize(("tiles", "count"), [((1, 1), 0), ((3, 3), 9), ((1, 12), 8), ((9, 9), 9), ((32, 32), 9)])
def test_a_few_tiles_spread_over_the_canvas_are_measured(tiles: tuple[int, int], count: int) -> None:
    spots = [(y, x) for y in range(tiles[0]) for x in range(tiles[1])]
    measured = codec._Norms([], len(spots)).sample(spots)
    assert len(measured) == len(set(measured)) == count
    for axis, length in enumerate(tiles):
        thirds = {spot[axis] * 3 // length for spot in measured}
        assert len(thirds) == (min(3, length) if measured else 0)


def test_norms_are_restored_when_decoding_is_stopped_early() -> None:
    model, shape = backbone("pocket"), Shape(16, 16, True, True)
    canvas = noise(16, 16, 16)
    with torch.no_grad():
        before = codec.decode_tile(model, canvas[None])
    tiles = codec.decode(model, canvas, shape, 8)
    next(tiles)
    tiles.close()
    with torch.no_grad():
        assert torch.equal(codec.decode_tile(model, canvas[None]), before)


# ---------------------------------------------------------------------------------------------- the torus


def rolled_apart(model: Model, canvas: Tensor, shape: Shape) -> Tensor:
    """How far the picture of a rolled canvas lies from the rolled picture, in parts of its contrast."""
    factor = model.family.factor
    straight = decoded(model, canvas, shape)
    rolled = decoded(model, canvas.roll((5, 9), (1, 2)), shape)
    return (rolled - straight.roll((5 * factor, 9 * factor), (1, 2))).abs() / straight.std()


def test_a_rolled_canvas_decodes_to_the_rolled_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("pocket")
    frozen_norms(model, monkeypatch)
    assert float(rolled_apart(model, noise(16, 16, 24), Shape(16, 24, True, True)).max()) < 1e-3
    assert float(rolled_apart(model, noise(16, 16, 24), Shape(16, 24, True, False)).max()) > 0.1


@pytest.mark.parametrize("name", ["pocket", SHIPPED, "sd15"])
def test_a_rolled_canvas_decodes_nearly_to_the_rolled_picture_with_its_own_norms(name: str) -> None:
    model = backbone(name)
    apart = rolled_apart(model, textured(model, 16, 24), Shape(16, 24, True, True))
    assert float(apart.mean()) < 0.1


def test_an_axis_with_edges_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("pocket")
    frozen_norms(model, monkeypatch)
    canvas = noise(16, 24, 24)
    changed = canvas.clone()
    changed[:, :, -1] += 3

    def reached(tile_x: bool) -> bool:
        shape = Shape(24, 24, True, tile_x)
        return bool((decoded(model, canvas, shape) - decoded(model, changed, shape))[:, :, 0].abs().max() > 1e-3)

    assert (reached(True), reached(False)) == (True, False)


@pytest.mark.parametrize("name", ["pocket", SHIPPED])
def test_a_rolled_picture_is_encoded_to_the_rolled_canvas(name: str) -> None:
    model, shape = backbone(name), Shape(16, 24, True, True)
    factor, picture = model.family.factor, texture(64, 96, tiling=True)
    straight = codec.encode_canvas(model, picture, shape)
    rolled = codec.encode_canvas(model, picture.roll((5 * factor, 9 * factor), (1, 2)), shape)
    wrong = (rolled - straight.roll((5, 9), (1, 2))).abs()
    assert float(wrong.mean()) < 0.06 * float(straight.std())


def test_a_canvas_is_encoded_in_tiles_of_any_size() -> None:
    model, shape = backbone(SHIPPED), Shape(21, 30, True, False)
    picture = texture(84, 120)
    whole, tiled = (codec.encode_canvas(model, picture, shape, side) for side in (64, 8))
    assert whole.shape == (16, 21, 30)
    assert float((tiled - whole).abs().mean()) < 0.1 * float(whole.std())


# ---------------------------------------------------------------------------------------------- the fitted decoder


def state(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.vae.decoder.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_fitted_decoder_is_nearer_to_the_swatch_and_the_own_one_is_restored() -> None:
    model, picture = backbone("pocket"), texture(48, 64)
    own, shape = state(model), Shape(12, 16, False, False)
    fractions, fitted = end(codec.fit_decoder(model, picture, steps=20))
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert same(state(model), own)
    assert not any(p.requires_grad or p.grad is not None for p in model.vae.parameters())
    z = codec.encode(model, picture)

    def error() -> float:
        return float((decoded(model, z, shape) - picture).abs().mean())

    before = error()
    with codec.fitted(model, fitted):
        assert same(state(model), fitted)
        assert error() < 0.9 * before
    assert same(state(model), own)


def test_fits_with_one_key_are_equal() -> None:
    model, pictures = backbone("pocket"), (texture(256, 256), texture(256, 256), texture(256, 256, seed=1))
    keys = [codec.fit_key(model, picture) for picture in pictures]
    fits = [end(codec.fit_decoder(model, picture, steps=1))[1] for picture in pictures]
    assert keys[0] == keys[1] != keys[2]
    assert same(fits[0], fits[1])
    assert not same(fits[0], fits[2])


def test_another_model_shape_or_length_gives_another_key() -> None:
    model, picture = backbone("pocket"), texture(64, 96)
    others = [
        codec.fit_key(replace(model, digest="another"), picture),
        codec.fit_key(model, picture, steps=76),
        codec.fit_key(model, picture.reshape(3, 96, 64)),
    ]
    assert len({codec.fit_key(model, picture), *others}) == 4


def test_a_fitted_decoder_has_a_higher_round_trip_psnr() -> None:
    model, picture = backbone("pocket"), texture(48, 64)
    _, state = end(codec.fit_decoder(model, picture, steps=20))
    before = codec.round_trip_psnr(model, picture)
    with codec.fitted(model, state):
        assert codec.round_trip_psnr(model, picture) > before + 1


def test_the_round_trip_compares_each_tile_with_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = backbone("pocket"), texture(64, 96)
    tiles = [(y, x, picture[:, y : y + 32, x : x + 48] + 0.1) for y in (0, 32) for x in (0, 48)]
    monkeypatch.setattr(codec, "decode", lambda *_: iter(tiles))
    assert codec.round_trip_psnr(model, picture * 0.8) != pytest.approx(20, abs=0.5)
    assert codec.round_trip_psnr(model, picture) == pytest.approx(20, abs=0.5)


def test_a_fit_that_is_stopped_early_restores_the_decoder() -> None:
    model = backbone("pocket")
    own = state(model)
    fit = codec.fit_decoder(model, texture(32, 32))
    next(fit)
    assert not same(state(model), own)
    fit.close()
    assert same(state(model), own)
    assert not any(p.requires_grad for p in model.vae.parameters())


def test_the_own_decoder_is_restored_after_an_exception() -> None:
    model = backbone("pocket")
    own = state(model)
    doubled = {name: 2 * value for name, value in own.items()}
    with pytest.raises(RuntimeError, match="half way"), codec.fitted(model, doubled):
        assert same(state(model), doubled)
        raise RuntimeError("half way")
    assert same(state(model), own)


def test_without_a_fitted_decoder_the_own_one_is_used() -> None:
    model = replace(backbone("pocket"))
    own = state(model)
    with codec.fitted(model, None):
        assert same(state(model), own)
