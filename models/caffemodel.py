"""Caffe's files of weights (.caffemodel), as the ResNets of 2015 were published: protocol buffers, read without Caffe.

Of the message NetParameter only names, types and blobs of layers are read. Nothing in the file is executed.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Numbers of the fields in caffe.proto.
_LAYER, _OLD_LAYER = 100, 2  # of NetParameter
_NAME, _TYPE, _BLOBS = 1, 2, 7  # of LayerParameter
_SIDES, _DATA, _SHAPE, _DOUBLES = (1, 2, 3, 4), 5, 7, 8  # of BlobProto; four sides are the old form of a shape
#: Type of a layer -> names of its blobs, as PyTorch's modules call them.
_BLOB_NAMES = {
    "Convolution": ("weight", "bias"),
    "InnerProduct": ("weight", "bias"),
    "BatchNorm": ("running_mean", "running_var", "factor"),
    "Scale": ("weight", "bias"),
}


def is_caffemodel(path: Path) -> bool:
    """Whether a file is called like one: its contents begin with no mark."""
    return path.suffix == ".caffemodel"


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The tensors of a file as LAYER.weight, LAYER.bias, LAYER.running_mean and LAYER.running_var.

    Caffe keeps sums of means and variances, and a factor to divide them by; the result is divided.

    Raises:
        ValueError: the file is damaged, or of Caffe's old format.
    """
    tensors: dict[str, Tensor] = {}
    try:
        for number, _, value in _fields(memoryview(path.read_bytes())):
            if number == _OLD_LAYER:
                raise ValueError("its layers are of the format before 2015: use Caffe's upgrade_net_proto_binary first")
            if number == _LAYER:
                tensors |= _layer(value)
    except (IndexError, UnicodeDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"the .caffemodel is damaged: {error}") from None
    if not tensors:
        raise ValueError("the .caffemodel holds no weights")
    return tensors


def _layer(message: memoryview) -> dict[str, Tensor]:
    name, kind, blobs = "", "", []
    for number, _, value in _fields(message):
        if number == _NAME:
            name = str(value, "utf-8")
        elif number == _TYPE:
            kind = str(value, "utf-8")
        elif number == _BLOBS:
            blobs.append(_blob(value))
    names = _BLOB_NAMES.get(kind, ())
    if len(blobs) > len(names):
        raise ValueError(f"the layer {name} of type {kind} has {len(blobs)} blobs, {len(names)} are known")
    found = dict(zip(names, blobs, strict=False))
    factor = found.pop("factor", None)
    if factor is not None:
        scale = 0.0 if factor.item() == 0 else 1 / factor.item()  # as Caffe does
        found = {key: value * scale for key, value in found.items()}
    if kind not in ("Convolution", "InnerProduct"):
        found = {key: value.flatten() for key, value in found.items()}  # an old shape has four sides
    return {f"{name}.{key}": value for key, value in found.items()}


def _blob(message: memoryview) -> Tensor:
    sides: dict[int, int] = {}
    shape: list[int] | None = None
    data = bytearray()
    kind = "<f4"
    for number, _, value in _fields(message):
        if number == _SHAPE:
            shape = _dimensions(value)
        elif number in _SIDES:
            sides[number] = value
        elif number in (_DATA, _DOUBLES):
            kind = "<f8" if number == _DOUBLES else "<f4"
            data += value  # packed, or one by one
    wanted = shape if shape is not None else [sides.get(number, 1) for number in _SIDES]
    values = np.frombuffer(bytes(data), kind).astype(np.float32)
    if math.prod(wanted) != values.size:
        raise ValueError(f"the .caffemodel is damaged: a blob of shape {tuple(wanted)} has {values.size} values")
    return torch.from_numpy(values).reshape(wanted)


def _dimensions(message: memoryview) -> list[int]:
    """The field dim of BlobShape, packed or one by one."""
    shape: list[int] = []
    for number, wire, value in _fields(message):
        if number != 1:
            continue
        if wire == 0:
            shape.append(value)
            continue
        place = 0
        while place < len(value):
            side, place = _varint(value, place)
            shape.append(side)
    return shape


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: an int for a varint, else its bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, wire, value
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"the .caffemodel is damaged: wire type {wire} at byte {place}")
        if place + length > len(message):
            raise ValueError("the .caffemodel is damaged: it ends within a field")
        yield number, wire, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length at a place, and the place after it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("the .caffemodel is damaged: a number has more than 64 bits")
