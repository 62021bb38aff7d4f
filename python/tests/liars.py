"""Objects that speak DLPack and say what is not so: made with ctypes, from the structures in `dlpack.h`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

NEW, DESTRUCTOR = ctypes.pythonapi.PyCapsule_New, ctypes.CFUNCTYPE(None, ctypes.c_void_p)
NEW.restype, NEW.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Tensor(ctypes.Structure):
    """`DLTensor`."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    """`DLManagedTensor`, of before version 1."""

    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Versioned(ctypes.Structure):
    """`DLManagedTensorVersioned`."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


class Liar:
    """An honest tensor of float32 zeros, but for what is said otherwise."""

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 1, 4, 8),
        *,
        real: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
        versioned: bool = True,
        name: bytes | None = None,
        major: int = 1,
        read_only: bool = False,
        null: bool = False,
        device: Any = (1, 0),
        capsule: Any = None,
        error: Exception | None = None,
        offset: int = 0,
        **fields: int,
    ) -> None:
        self.memory = np.zeros(real or [max(size, 0) for size in shape], np.float32)
        self.device, self.capsule, self.error = device, capsule, error
        self.shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.strides = None if strides is None else (ctypes.c_int64 * max(len(strides), 1))(*strides)
        data = None if null else self.memory.ctypes.data
        tensor = Tensor(data, 1, 0, len(shape), 2, 32, 1, self.shape, self.strides, offset)
        for field, value in fields.items():
            setattr(tensor, field, value)
        if versioned:
            self.managed: ctypes.Structure = Versioned(major, 0, None, None, int(read_only), tensor)
        else:
            self.managed = Managed(tensor, None, None)
        self.name = name or (b"dltensor_versioned" if versioned else b"dltensor")

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, **_: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.capsule if self.capsule is not None else NEW(ctypes.addressof(self.managed), self.name, None)
