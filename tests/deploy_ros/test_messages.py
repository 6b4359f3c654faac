"""Message conversions on plain objects with ROS's field names."""

from __future__ import annotations

import math
import struct
from io import BytesIO
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnibody.deploy_ros import messages
from omnibody.robots.spec import CameraMount

CAMERA = CameraMount(position=(0.0, 0.0, 0.3), pitch=0.0)


def image(values: np.ndarray, encoding: str = "32FC1", big: bool = False, pad: int = 0) -> Any:
    dtype = np.dtype((">" if big else "<") + messages.DEPTH_UNITS[encoding][0])
    raw = np.ascontiguousarray(values.astype(dtype)).view(np.uint8).reshape(len(values), -1)
    raw = np.pad(raw, ((0, 0), (0, pad)), constant_values=255)
    height, width = values.shape
    return Message(
        encoding=encoding, is_bigendian=big, height=height, width=width, step=raw.shape[1], data=raw.tobytes()
    )


def compressed(metres: np.ndarray, encoding: str = "16UC1", how: str = "compressedDepth png") -> Any:
    """What image_transport's compressedDepth makes of an image, with a = 20 and b = 5 for 32FC1."""
    whole = metres * 1000 if encoding == "16UC1" else np.where(metres > 0, 20.0 / np.maximum(metres, 1e-3) + 5.0, 0.0)
    png = BytesIO()
    Image.fromarray(whole.round().astype(np.uint16)).save(png, format="PNG")
    return Message(format=f"{encoding}; {how}", data=struct.pack("<iff", 0, 20.0, 5.0) + png.getvalue())


PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def colours(rgb: np.ndarray, encoding: str = "rgb8", pad: int = 0) -> Any:
    """An ``Image`` of an RGB picture; alpha and what pads the rows are 7."""
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 7)], -1)
    raw = rgba[..., ["rgba".index(name) for name in encoding[:-1]]].reshape(len(rgb), -1)
    raw = np.pad(raw, ((0, 0), (0, pad)), constant_values=7)
    height, width, _ = rgb.shape
    return Message(encoding=encoding, is_bigendian=0, height=height, width=width, step=raw.shape[1], data=raw.tobytes())


def encoded(rgb: np.ndarray, kind: str = "PNG", how: str = "png") -> Any:
    """A ``CompressedImage`` of a picture."""
    file = BytesIO()
    Image.fromarray(rgb).save(file, format=kind)
    return Message(format=how, data=file.getvalue())


AXES = {"x": 4, "y": 12, "z": 0}  # offsets [bytes], not in order and with a gap


def cloud(points: np.ndarray, kind: str = "<f4", rows: int = 1, pad: int = 0, frame: str = "base_link") -> Any:
    """A ``PointCloud2`` of points (P, 3) in so many rows with ``pad`` bytes behind each."""
    size = np.dtype(kind).itemsize
    offsets = {axis: offset * size // 4 for axis, offset in AXES.items()}
    step = 5 * size
    raw = np.full((rows, len(points) // rows * step + pad), 255, np.uint8)
    for n, point in enumerate(points):
        row, column = divmod(n, len(points) // rows)
        for axis, value in zip("xyz", point, strict=True):
            at = column * step + offsets[axis]
            raw[row, at : at + size] = np.frombuffer(np.array(value, kind).tobytes(), np.uint8)
    types = {name: number for number, name in messages.POINT_TYPES.items()}
    return Message(
        header=Message(frame_id=frame),
        fields=[Message(name=a, offset=o, datatype=types[kind[1:]], count=1) for a, o in offsets.items()],
        is_bigendian=kind[0] == ">",
        height=rows,
        width=len(points) // rows,
        point_step=step,
        row_step=raw.shape[1],
        data=raw.tobytes(),
    )


def pose(x: float, y: float, yaw: float) -> Any:
    turn = Message(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    return Message(position=Message(x=x, y=y, z=0.0), orientation=turn)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pad", [0, 12])
def test_depth_is_the_same_in_every_layout(big: bool, pad: int) -> None:
    metres = np.random.default_rng(0).integers(500, 9000, (16, 64)) / 1000.0
    assert np.allclose(messages.depth(image(metres, "32FC1", big, pad), CAMERA), metres, atol=1e-6)
    assert np.allclose(messages.depth(image(metres * 1000, "16UC1", big, pad), CAMERA), metres, atol=1e-3)
    assert messages.depth(image(metres, "32FC1", big, pad), CAMERA).flags.c_contiguous
    finer = np.kron(metres, np.ones((30, 10)))
    assert np.allclose(messages.depth(image(finer, "32FC1", big, pad), CAMERA), metres, atol=1e-6)


def test_what_depth_cannot_measure_reads_as_far() -> None:
    metres = np.full((16, 64), 2.0)
    metres[0, :4] = 0.0, np.nan, np.inf, 30.0
    out = messages.depth(image(metres), CAMERA)
    assert (out[0, :4] == CAMERA.max_range).all() and (out[1:] == 2.0).all() and out.dtype == np.float32


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoding", "rgb8"), ("step", 8), ("data", b"12"), ("height", 0)],
)
def test_a_wrong_image_is_refused_by_field(field: str, value: Any) -> None:
    message = image(np.ones((16, 64)))
    messages.depth(message, CAMERA)  # the unspoilt one passes
    setattr(message, field, value)
    with pytest.raises(messages.MessageError, match=r"depth\.\w+: wanted .* came"):
        messages.depth(message, CAMERA)


@pytest.mark.parametrize("how", ["compressedDepth png", "compressedDepth"])
def test_compressed_depth_is_what_was_compressed(how: str) -> None:
    metres = np.random.default_rng(0).integers(500, 9000, (16, 64)) / 1000.0
    metres[0, 0] = 0.0  # not measured
    near = np.where(metres > 0.0, metres, CAMERA.max_range)
    assert np.allclose(messages.depth(compressed(metres, how=how), CAMERA), near, atol=1e-6)
    metres = np.where(metres > 0.0, 20.0 / (np.arange(1, 1025).reshape(16, 64) + 2.0), 0.0)  # exact when quantised
    assert np.allclose(
        messages.depth(compressed(metres, "32FC1", how), CAMERA)[0, 1:], np.minimum(metres, CAMERA.max_range)[0, 1:]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "16UC1; compressedDepth rvl"),
        ("format", "rgb8; jpeg compressed bgr8"),
        ("data", b"12"),
        ("data", b""),
    ],
)
def test_an_unknown_compression_is_refused_by_field(field: str, value: Any) -> None:
    message = compressed(np.ones((16, 64)))
    setattr(message, field, value)
    with pytest.raises(messages.MessageError, match=rf"depth\.{field}: wanted .* came"):
        messages.depth(message, CAMERA)


def test_a_spoilt_compressed_image_is_refused_or_read_but_never_worse() -> None:
    message, rng, refused = compressed(np.ones((16, 64))), np.random.default_rng(0), 0
    whole = np.frombuffer(message.data, np.uint8)
    for n in range(300):
        data = whole.copy()
        data[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        message.data = data[: rng.integers(len(data)) if n % 3 == 0 else None].tobytes()
        try:
            assert messages.depth(message, CAMERA).shape == (16, 64)
        except messages.MessageError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@pytest.mark.parametrize("pad", [0, 5])
def test_an_image_is_the_same_in_every_layout(encoding: str, pad: int) -> None:
    finer = np.kron(PICTURE, np.ones((30, 10, 1), np.uint8))
    for rgb in (PICTURE, finer):
        came = messages.image(colours(rgb, encoding, pad), 6, 8)
        assert np.array_equal(came, PICTURE) and came.dtype == np.uint8 and came.flags.c_contiguous
    assert not np.array_equal(messages.image(colours(PICTURE[..., ::-1], encoding, pad), 6, 8), PICTURE)


@pytest.mark.parametrize("how", ["png", "bgr8; png compressed bgr8", "rgba8; png compressed bgr8"])
def test_a_compressed_image_is_what_was_compressed(how: str) -> None:
    assert np.array_equal(messages.image(encoded(PICTURE, how=how), 6, 8), PICTURE)
    clear = np.concatenate([PICTURE, np.full_like(PICTURE[..., :1], 255)], -1)
    assert np.array_equal(messages.image(encoded(clear, how=how), 6, 8), PICTURE)


@pytest.mark.parametrize("how", ["jpeg", "rgb8; jpeg compressed bgr8"])
def test_a_jpeg_is_nearly_what_was_compressed(how: str) -> None:
    smooth = np.kron(np.array([[[200, 40, 90], [30, 180, 60]]]), np.ones((32, 32, 1))).astype(np.uint8)
    came = messages.image(encoded(smooth, "JPEG", how), 4, 8).astype(int)
    assert np.abs(came - smooth[::8, ::8]).max() < 10
    assert np.abs(came[..., ::-1] - smooth[::8, ::8]).max() > 50  # the control: red is not blue


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"encoding": "mono8"}, r"image\.encoding: wanted one of rgb8, bgr8, rgba8, bgra8, came 'mono8'"),
        ({"step": 20}, r"image\.step: wanted at least one pixel and 24 bytes a row, came 6 x 8 pixels and 20 bytes"),
        ({"height": 5}, r"image\.data: wanted 5 rows of 24 bytes, came 144 bytes"),
        ({"width": 0, "step": 0, "data": b""}, r"image\.step: wanted at least one pixel"),
        ({"format": "16UC1; compressedDepth png"}, r"image\.format: wanted jpeg or png, came '16UC1; comp"),
        ({"format": ""}, r"image\.format: wanted jpeg or png, came ''"),
        ({"format": "png", "data": b"12"}, r"image\.data: wanted a JPEG or PNG, came 2 other bytes"),
        ({"format": "png", "data": encoded(PICTURE).data[:90]}, r"image\.data: wanted a JPEG or PNG, came 90 other"),
        ({"format": "png", "data": encoded(PICTURE[..., 0]).data}, r"image\.data: wanted .* RGB or RGBA, .* mode L"),
    ],
)
def test_a_wrong_picture_is_refused_by_field(spoilt: dict[str, Any], words: str) -> None:
    message = encoded(PICTURE) if "format" in spoilt else colours(PICTURE)
    messages.image(message, 6, 8)  # the unspoilt one passes
    vars(message).update(spoilt)
    with pytest.raises(messages.MessageError, match=words):
        messages.image(message, 6, 8)


def test_a_covered_camera_is_refused() -> None:
    scattered = np.full((160, 640), np.nan)
    scattered[0, 0] = 2.0  # between the camera's pixels
    assert (messages.depth(image(scattered), CAMERA) == CAMERA.max_range).all()
    with pytest.raises(messages.MessageError, match="without any"):
        messages.depth(image(np.full((16, 64), np.nan)), CAMERA)


@pytest.mark.parametrize("yaw", [-3.0, -0.5, 0.0, 2.0])
def test_odometry_gives_pose_and_twist(yaw: float) -> None:
    twist = Message(linear=Message(x=0.5, y=-0.1, z=0.0), angular=Message(x=0.0, y=0.0, z=0.2))
    message = Message(pose=Message(pose=pose(1.0, 2.0, yaw)), twist=Message(twist=twist))
    where, velocity = messages.odometry(message)
    assert np.allclose(where, [1.0, 2.0, yaw]) and np.allclose(velocity, [0.5, -0.1, 0.2])
    twist.linear.x = math.nan
    with pytest.raises(messages.MessageError, match=r"odom\.twist"):
        messages.odometry(message)


def test_a_zero_quaternion_is_refused() -> None:
    broken = pose(0.0, 0.0, 0.0)
    broken.orientation.w = 0.0
    with pytest.raises(messages.MessageError, match="unit quaternion"):
        messages.goal_pose(Message(pose=broken))


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize(("rows", "pad"), [(1, 0), (3, 0), (3, 7)])
def test_a_cloud_is_the_same_in_every_layout(kind: str, rows: int, pad: int) -> None:
    points = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32).astype(np.float64)
    assert np.array_equal(messages.points(cloud(points, kind, rows, pad), "base_link"), points)
    spoilt = points.copy()
    spoilt[3, 1], spoilt[7, 2] = np.nan, np.inf
    came = messages.points(cloud(spoilt, kind, rows, pad, "robot1/base_link"), "base_link")
    assert np.array_equal(came, np.delete(points, [3, 7], axis=0))
    assert messages.points(cloud(points[:0], kind), "base_link").shape == (0, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("fields", []), ("point_step", 8), ("row_step", 8), ("data", b"12"), ("header", Message(frame_id="lidar"))],
)
def test_a_wrong_cloud_is_refused_by_field(field: str, value: Any) -> None:
    message = cloud(np.ones((12, 3)), rows=3)
    messages.points(message, "base_link")  # the unspoilt one passes
    setattr(message, field, value)
    with pytest.raises(messages.MessageError, match=r"points\.\w+(\.frame_id)?: wanted .* came"):
        messages.points(message, "base_link")


def test_path_scan_twist_and_stamp() -> None:
    header, stops = Message(frame_id="odom"), [Message(pose=pose(0.0, 1.0, 0.0)), Message(pose=pose(2.0, 3.0, 0.0))]
    frame, way = messages.path(Message(header=header, poses=stops))
    assert frame == "odom" and way.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert messages.path(Message(header=header, poses=[]))[1].shape == (0, 2)
    scan = Message(ranges=[1.0, math.inf, 0.01], angle_min=-1.0, angle_increment=1.0, range_min=0.1, range_max=5.0)
    scan.header = Message(frame_id="base_link")
    assert messages.scan(scan, "base_link").tolist() == [[1.0, -1.0], [math.inf, 0.0], [math.inf, 1.0]]
    with pytest.raises(messages.MessageError, match=r"scan\.header\.frame_id: wanted 'base', .* came 'base_link'"):
        messages.scan(scan, "base")
    command = Message(linear=Message(x=0.0, y=0.0, z=0.0), angular=Message(x=0.0, y=0.0, z=0.0))
    messages.fill_twist(command, np.array([0.1, 0.2, 0.3]))
    assert (command.linear.x, command.linear.y, command.angular.z) == (0.1, 0.2, 0.3)
    with pytest.raises(messages.MessageError, match="command"):
        messages.fill_twist(command, np.array([math.nan, 0.0, 0.0]))
    assert messages.stamp(Message(header=Message(stamp=Message(sec=3, nanosec=500_000_000)))) == 3.5


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("frames", [("odom",), ("", "map", "robot1/odom", "odometry")])
@pytest.mark.parametrize("little", [True, False])
def test_a_serialized_path_is_read_as_it_was_written(count: int, frames: tuple[str, ...], little: bool) -> None:
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)

    def make(kind: str, **values: Any) -> Any:
        return store.types[kind](**values)

    def header(frame: str) -> Any:
        return make("std_msgs/msg/Header", stamp=make("builtin_interfaces/msg/Time", sec=3, nanosec=5), frame_id=frame)

    points = np.random.default_rng(count).normal(size=(count, 2))
    turn = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    poses = [
        make(
            "geometry_msgs/msg/PoseStamped",
            header=header(frames[n % len(frames)]),
            pose=make(
                "geometry_msgs/msg/Pose", position=make("geometry_msgs/msg/Point", x=x, y=y, z=0.1), orientation=turn
            ),
        )
        for n, (x, y) in enumerate(points.tolist())
    ]
    kind = "nav_msgs/msg/Path"
    data = bytes(store.serialize_cdr(make(kind, header=header(frames[-1]), poses=poses), kind, little_endian=little))
    frame, came = messages.serialized_path(data)
    assert frame == frames[-1] and np.array_equal(came, points)
    if count > 2:
        with pytest.raises(messages.MessageError, match="wanted a serialized nav_msgs/Path"):
            messages.serialized_path(data[: len(data) // 2])
