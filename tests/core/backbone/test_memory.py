"""What a device needs: the estimates agree with what the real architectures allocate, and stages keep to them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ad_service.bench.random_models import UNETS, vae
from ad_service.core import SynthesizeRequest
from ad_service.core.backbone import codec, devices, memory, model
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.model import FAMILIES, Model
from ad_service.core.canvas import Shape, Window
from ad_service.core.pipeline import denoise
from ad_service.core.pipeline.denoise import room_for
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.samplers import Constraints, Plan, _Descent
from tests.support import fake_device, tiny_checkpoints
from tests.support.memory_tracker import MemoryTracker, fused_attention
from tests.support.tiny_models import backbone, end, noise, texture

GIB = 2**30
META = torch.device("meta")


def real_model(family: str) -> Model:
    """A model of the real size in bfloat16, without weights."""
    with META:
        unet = tiny_checkpoints.real(family).unet.to(torch.bfloat16).requires_grad_(False)
        tokens = torch.zeros(1, 77, UNETS[family]["cross_attention_dim"], dtype=torch.bfloat16)
    alphas = torch.linspace(0.99, 0.01, 1000)
    codec_ = vae(family, (16, 16, 16, 16))
    return Model(FAMILIES[family], family, unet, codec_, alphas, "epsilon", META, torch.bfloat16, Conditioning(tokens))


def gradient_bytes(big: Model, side: int, recomputes: bool) -> float:
    """Bytes for each latent at the peak of one gradient with a content loss."""
    z, batch = torch.zeros(1, 4, side, side, device="meta"), [Window(0, 0, side, side)]
    with fused_attention(), capture_attention(big, recomputes=recomputes) as capture, MemoryTracker() as tracker:
        descent = _Descent(capture, Constraints(z, Shape(side, side, True, True)), Plan(1, 1, 0.05, 0.25, 1.0))
        reference = capture.reference(z, 5)
        content = descent.content_queries(z[0], 5, reference, batch)
        descent._gradient_at_once(z, 5, reference, batch, content)
    return tracker.peak / side**2


def test_a_gradient_needs_as_much_as_estimated() -> None:
    big, known = real_model("sd15"), memory.UNETS["sd15"]
    assert sum(p.numel() for p in big.unet.parameters()) == known.parameters
    assert gradient_bytes(big, 64, recomputes=False) == pytest.approx(known.gradient, rel=0.02)
    assert gradient_bytes(big, 64, recomputes=True) == pytest.approx(known.recomputed, rel=0.02)


def real_vae() -> Any:
    with META:
        return vae("sd15").requires_grad_(False)


def test_encoder_and_decoder_need_as_much_as_estimated() -> None:
    network, side = real_vae(), 48
    z, picture = torch.zeros(1, 4, side, side, device="meta"), torch.zeros(1, 3, 8 * side, 8 * side, device="meta")
    assert sum(p.numel() for p in network.parameters()) == memory.VAE_BYTES / 4
    latent = memory.map_bytes(memory.VAE_WIDTH, 8) * side**2
    with torch.no_grad(), MemoryTracker() as tracker:
        network.encode(picture)
    assert tracker.peak == pytest.approx(memory.ENCODER_MAPS * latent, rel=0.05)
    for part, run, maps in (
        (network.decoder, lambda: network.decode(z), memory.DECODER_MAPS),
        (network.encoder, lambda: network.encode(picture), memory.SHARED_ENCODER_MAPS),
    ):
        with torch.no_grad(), codec._shared_statistics(part, 4) as norms, MemoryTracker() as tracker:
            run()
            norms.freeze()
            run()
        assert tracker.peak == pytest.approx(maps * latent, rel=0.05)


def test_a_fit_needs_as_much_as_estimated() -> None:
    network, side = real_vae(), 48
    parameters = [p.requires_grad_(True) for p in network.decoder.parameters()]
    assert sum(p.numel() for p in parameters) == memory.DECODER_BYTES / 4
    with MemoryTracker() as tracker:
        network.decode(torch.zeros(1, 4, side, side, device="meta")).sample.mean().backward()
    activations = memory.FIT_MAPS * memory.map_bytes(memory.VAE_WIDTH, 8) * side**2
    assert tracker.peak == pytest.approx(activations + memory.DECODER_BYTES, rel=0.05)


# ---------------------------------------------------------------------------------------------- stages keep to it


def with_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """All stages see a device with this many free bytes."""
    for module in (codec, denoise, model):
        monkeypatch.setattr(module, "free_memory", lambda _: int(free))


@pytest.mark.parametrize(
    ("family", "free", "window", "recomputes"),
    [
        ("sd15", 100 * GIB, 64, False),
        ("sd15", 6 * GIB, 64, False),
        ("sd15", 0.6 * GIB, 64, True),
        ("sd15", 0.2 * GIB, 48, True),
        ("sdxl", 80 * GIB, 128, False),
        ("sdxl", 5.5 * GIB, 128, True),
        ("sdxl", 0.5 * GIB, 88, True),
    ],
)
def test_windows_are_chosen_for_the_free_memory(
    family: str, free: float, window: int, recomputes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, free)
    room = room_for(replace(backbone(family), dtype=torch.bfloat16))
    assert (room.window, room.recomputes) == (window, recomputes)
    known = memory.UNETS[family]
    each = (known.recomputed if recomputes else known.gradient) * window**2
    assert room.batch * each <= memory.SHARE * free
    assert room.batch == 32 or (room.batch + 1) * each > memory.SHARE * free


def test_attention_that_keeps_all_scores_needs_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 3 * GIB)
    apple = replace(backbone("sd15"), dtype=torch.float16, device=torch.device("mps"))
    assert room_for(replace(apple, device=torch.device("cuda"))).recomputes is False
    assert room_for(apple) == denoise.Room(64, 1, True, 3 * GIB)


def test_sdxl_at_1024_fits_into_12_gigabytes_beside_blender() -> None:
    known = memory.job_memory("sdxl", 2, 128)
    assert known is not None and known.least < 7 * GIB < known.comfortable


def test_a_preview_runs_several_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 8 * GIB)
    assert room_for(backbone("sd15"), takes_gradients=False).batch > room_for(backbone("sd15")).batch > 1


def sizes_of(network: Any) -> list[int]:
    """The longer sides of what goes through an encoder or a decoder from now on."""
    sides: list[int] = []
    network.register_forward_pre_hook(lambda _, given: sides.append(max(given[0].shape[2:])))
    return sides


def copy_of(name: str) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = vae(name, (16, 16, 16, 16)).requires_grad_(False)
    return replace(backbone(name), vae=own)


def test_tiles_are_chosen_before_the_first_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, shape = copy_of("sd15"), Shape(40, 40, True, True)
    with_free(monkeypatch, memory.DECODER_MAPS * memory.map_bytes(16, 8) * 56**2 / memory.SHARE)
    sides = sizes_of(tiny.vae.decoder)
    list(codec.decode(tiny, noise(4, 40, 40), shape))
    assert max(sides) <= 56
    sides = sizes_of(tiny.vae.encoder)
    codec.encode(tiny, texture(320, 320))
    assert max(sides) <= 56 * 8


def test_a_swatch_is_encoded_in_tiles_if_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, whole = copy_of("sd15"), codec._encode
    expected = codec.encode(tiny, texture(512, 512))

    def little(m: Model, picture: Tensor) -> Tensor:
        if picture.shape[1] > 450:
            raise RuntimeError("MPS backend out of memory")
        return whole(m, picture)

    monkeypatch.setattr(codec, "_encode", little)
    found = codec.encode(tiny, texture(512, 512))
    assert float((found - expected).abs().mean()) < 0.5 * float(expected.std())


def test_tiles_of_an_encoder_share_their_statistics() -> None:
    """Tiles of a dark and a bright half are nearer to the picture encoded at once than with statistics of their own."""
    tiny = copy_of("sd15")
    picture = texture(128, 1024) * 0.3
    picture[:, :, 512:] += 0.7
    whole = codec.encode(tiny, picture)
    tiled = codec.encode_canvas(tiny, picture, Shape(16, 128, False, False), 16)
    own = codec.encode_canvas(
        replace(tiny, family=replace(tiny.family, own_tile_statistics=True)), picture, Shape(16, 128, False, False), 16
    )
    wrong, wrong_own = (float((z - whole).abs().mean()) for z in (tiled, own))
    assert wrong < 0.85 * wrong_own


# ---------------------------------------------------------------------------------------------- nothing is lost


def drained(work: Generator[float, None, Any]) -> Any:
    return end(work)[1]


def test_a_fit_that_runs_out_of_memory_begins_again_with_smaller_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, decode_tile, sides = copy_of("sd15"), codec.decode_tile, list[int]()

    def little(m: Model, z: Tensor) -> Tensor:
        sides.append(z.shape[2])
        if z.shape[2] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_tile(m, z)

    monkeypatch.setattr(codec, "decode_tile", little)
    before = {name: value.clone() for name, value in tiny.vae.decoder.state_dict().items()}
    state = drained(codec.fit_decoder(tiny, texture(320, 320), steps=2, side=40))
    assert sides == [40, 20, 20]
    assert any(not torch.equal(state[name], before[name]) for name in before)
    assert all(torch.equal(value, before[name]) for name, value in tiny.vae.decoder.state_dict().items())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "too little memory"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "too little memory"),
        (RuntimeError("some operation has no kernel"), "some operation has no kernel"),
    ],
)
def test_a_decoder_that_cannot_be_fitted_does_not_lose_the_canvas(
    error: RuntimeError, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Generator[float, None, Any]:
        yield 0.1
        raise error

    monkeypatch.setattr(codec, "fit_decoder", fail)
    request = SynthesizeRequest(swatch=texture(64, 64), height=64, width=64, steps=1)
    _, result = end(synthesize(backbone("sd15"), request))
    assert result.color.shape == (64, 64, 3)
    (note,) = result.notes
    assert reason in note and "was not fitted" in note


def test_the_unet_waits_on_the_host_while_there_is_no_room_for_the_codec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = fake_device.device()
    network = torch.nn.Linear(2, 2).to(device)
    held = replace(backbone("sd15"), unet=network, device=device)
    with_free(monkeypatch, GIB)
    with model.unet_on_host(held, if_free_below=GIB):
        assert next(network.parameters()).device.type == device.type
    with model.unet_on_host(held, if_free_below=2 * GIB):
        assert next(network.parameters()).device.type == "cpu"
    assert next(network.parameters()).device.type == device.type


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_all_ways_to_say_that_memory_is_out_are_known(error: BaseException, expected: bool) -> None:
    assert devices.is_out_of_memory(error) is expected


# ---------------------------------------------------------------------------------------------- recomputed blocks


def test_recomputed_blocks_give_the_same_gradient_and_leave_the_model_as_it_was() -> None:
    tiny, z, batch = backbone("sd15"), noise(1, 4, 16, 16), [Window(0, 0, 16, 16)]
    gradients = []
    for recomputes in (False, True):
        with capture_attention(tiny, recomputes=recomputes) as capture:
            descent = _Descent(capture, Constraints(z, Shape(16, 16, True, True)), Plan(1, 1, 0.05, 0.25, 1.0))
            reference = capture.reference(noise(1, 4, 16, 16, seed=3), 200)
            content = descent.content_queries(noise(4, 16, 16, seed=4), 200, reference, batch)
            gradients.append(descent._gradient_at_once(z, 200, reference, batch, content))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-4)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in tiny.unet.modules())


def test_blocks_are_recomputed_in_a_whole_job_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 0.2 * GIB)
    request = SynthesizeRequest(swatch=texture(64, 64), height=64, width=64, steps=1, detail="off")
    _, result = end(synthesize(backbone("sd15"), request))
    assert any("windows of" in note and "0.2 GB" in note for note in result.notes)
