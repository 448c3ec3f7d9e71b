"""Mini street scenes: rendered driving scenes in the layout of raw SYNTHIA-SEQS.

A frame is one street with its buildings, trees, vehicles and people, in metres; ``x`` points to
the right of the road, ``y`` up, ``z`` along it. Eight cameras on one car look at it, as in
SYNTHIA-SEQS: front, back, left and right, each as a stereo pair. Every object is made of flat
polygons, drawn back to front into the image and the label together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..files import write_atomically
from ..out_folder import is_complete, whole_folder
from .convert import encode_png
from .convert_synthia import CAMERAS, SIDES
from .parallel import parallel_map
from .synthia import SYNTHIA_IDS

ID = {name: index for index, name in enumerate(SYNTHIA_IDS)}

YAW = dict(Omni_F=0.0, Omni_B=np.pi, Omni_L=-0.85, Omni_R=0.85)
"""Direction of each camera in radians, clockwise from the driving direction seen from above."""

BASELINE = 0.8
"""Distance of the two cameras of a stereo pair, in metres."""

NEAR = 0.4
SUPERSAMPLING = 2
ROAD, KERB, WALK = 5.3, 5.5, 8.2
"""Distances from the middle of the road to its edge, the kerb's end and the pavement's end."""

Rng = np.random.Generator
Colour = Sequence[float] | np.ndarray
Points = Sequence[Sequence[float]] | np.ndarray
Wall = tuple[Colour, Colour, float]


class Face(NamedTuple):
    """A flat convex polygon; ``class_id`` None paints (a shadow) without labelling."""

    class_id: int | None
    colour: np.ndarray
    points: np.ndarray


class Thing(NamedTuple):
    """An object: faces in drawing order, and what decides when it is drawn.

    ``upright`` things are flat drawings in (right, up) coordinates that stand at ``anchor`` and
    turn to the camera; the others are in world coordinates. Of ``solid`` things only the faces
    that turn to the camera are drawn: those whose corners run counter-clockwise seen from it.
    Layers are drawn in order, lots of one layer far to near, things of one lot far to near.
    """

    anchor: np.ndarray
    faces: list[Face]
    layer: int
    upright: bool = False
    solid: bool = False
    lot: float | None = None


class Camera(NamedTuple):
    """A pinhole camera; ``focal`` and the horizon's ``row`` in units of the image width."""

    position: np.ndarray
    yaw: float
    focal: float
    row: float


# --- shapes -----------------------------------------------------------------------------------


def face(name: str | None, colour: Colour, points: Points) -> Face:
    """A face from a class name, an RGB colour (0-255) and its corners."""
    corners = np.asarray(points, float)
    if corners.shape[1] == 2:
        corners = np.column_stack([corners, np.zeros(len(corners))])
    return Face(None if name is None else ID[name], np.asarray(colour, float), corners)


def rectangle(x0: float, x1: float, y0: float, y1: float) -> list[tuple[float, float]]:
    """Corners of an upright rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def disc(x: float, y: float, rx: float, ry: float | None = None, corners: int = 14) -> np.ndarray:
    """Corners of a regular polygon, or of an ellipse."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + np.pi / corners
    return np.column_stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)])


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
    """Corners of a straight stroke."""
    along = np.array([x1 - x0, y1 - y0])
    side = np.array([-along[1], along[0]]) / np.hypot(*along) * width / 2
    start, end = np.array([x0, y0]), np.array([x1, y1])
    return np.array([start - side, end - side, end + side, start + side])


def ground(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> list[tuple]:
    """Corners of a horizontal rectangle."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def panel(origin: Colour, right: Colour, u0: float, u1: float, v0: float, v1: float) -> np.ndarray:
    """Corners of a rectangle on a wall: ``u`` along it, ``v`` up, seen from outside."""
    origin, right, up = np.asarray(origin, float), np.asarray(right, float), np.array([0, 1.0, 0])
    return np.array(
        [origin + u * right + v * up for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
    )


def standing(x: float, z: float, faces: list[Face]) -> Thing:
    """A flat drawing beside the road, that turns to the camera."""
    return Thing(np.array([x, 0, z]), faces, 3, upright=True)


def pick(rng: Rng, colours: list[tuple[int, int, int]], amount: float = 12.0) -> np.ndarray:
    """A colour near one of several."""
    return vary(rng, colours[rng.integers(len(colours))], amount)


def vary(rng: Rng, colour: Colour, amount: float = 12.0) -> np.ndarray:
    """A colour near ``colour``: brightness and hue each jittered."""
    return np.clip(
        np.asarray(colour) + rng.normal(0, amount) + rng.normal(0, amount / 3, 3), 4, 250
    )


# --- objects ----------------------------------------------------------------------------------

FACADES = [
    *((172, 140, 112), (150, 88, 70), (188, 178, 156), (134, 134, 138), (198, 164, 116)),
    *((120, 104, 96), (164, 120, 104), (206, 196, 184)),
]
CLOTHES = [
    *((150, 34, 40), (36, 60, 130), (40, 40, 46), (190, 184, 170), (60, 104, 70), (190, 140, 50)),
]
PAINTS = [
    *((160, 26, 30), (30, 50, 120), (30, 32, 36), (208, 208, 210), (120, 124, 130)),
    *((210, 180, 60), (40, 92, 80)),
]


def building(rng: Rng, side: int, x: float, z0: float, z1: float) -> Thing:
    """A house with windows and a ground floor; ``side`` is -1 left of the road and 1 right."""
    floors, storey = int(rng.integers(2, 6)), rng.uniform(2.8, 3.4)
    height, depth = floors * storey + 1.2, 12.0
    colour = pick(rng, FACADES)
    glass = vary(rng, (66, 78, 92), 14)
    frame = np.clip(colour * rng.choice([0.72, 1.25]), 0, 245)
    pitch, wide, tall = rng.uniform(2.3, 3.4), rng.uniform(0.45, 0.62), rng.uniform(0.5, 0.66)
    shop = rng.random() < 0.5
    inner, outer = side * x, side * (x + depth)
    walls = [
        ((inner, 0, z1 if side > 0 else z0), (0, 0, -side), z1 - z0, 1.0),
        ((min(inner, outer), 0, z0), (1, 0, 0), depth, 0.8),
        ((max(inner, outer), 0, z1), (-1, 0, 0), depth, 0.72),
    ]
    faces = []
    for index, (origin, right, length, light) in enumerate(walls):

        def add(tint: np.ndarray, *bounds: float, wall: Wall = (origin, right, light)) -> None:
            faces.append(face('building', tint * wall[2], panel(wall[0], wall[1], *bounds)))

        add(colour, 0, length, 0, height)
        add(colour * 0.7, 0, length, height - 0.5, height)
        columns = max(1, int(length / pitch))
        step = length / columns
        first = 0
        if index == 0:
            first = 1
            add(colour * (0.55 if shop else 0.82), 0, length, 0, storey)
            if shop:
                add(pick(rng, PAINTS, 20), 0.4, length - 0.4, 2.5, 3.0)
            door = rng.integers(columns)
            for column in range(columns):
                u = column * step
                if column == door:
                    add(vary(rng, (84, 58, 40)), u + 0.3 * step, u + 0.7 * step, 0, 2.2)
                else:
                    low = 0.4 if shop else 1.0
                    add(glass, u + 0.15 * step, u + 0.85 * step, low, 2.2)
            if rng.random() < 0.6:
                # Round and square boards on walls: like a sign or a light, and neither.
                u, v = rng.uniform(0.1, 0.9) * length, rng.uniform(2.6, 4.2)
                tint = pick(rng, PAINTS, 20)
                add(tint, u - 0.35, u + 0.35, v, v + rng.choice([0.7, 1.3]))
                add(np.array([225, 222, 214]), u - 0.2, u + 0.2, v + 0.2, v + 0.45)
        for floor in range(first, floors):
            for column in range(columns):
                u, v = (column + 0.5) * step, floor * storey + 0.3
                half, top = wide * step / 2, v + 0.5 + tall * storey
                add(frame, u - half - 0.12, u + half + 0.12, v + 0.4, top + 0.1)
                lit = rng.random() < 0.08
                tint = np.array([226, 200, 140]) if lit else glass * rng.uniform(0.75, 1.35)
                add(tint, u - half, u + half, v + 0.5, top)
    return Thing(np.array([inner, 0, (z0 + z1) / 2]), faces, 1, solid=True, lot=(z0 + z1) / 2)


def tree(
    rng: Rng, x: float, z: float, layer: int, lot: float | None = None, size: float = 1
) -> Thing:
    """A trunk under a crown of leaf clumps."""
    height, radius = size * rng.uniform(2.2, 3.2), size * rng.uniform(1.3, 2.0)
    green = vary(rng, (62, 96, 42), 14)
    trunk = rng.uniform(0.12, 0.2) * size
    faces = [face('vegetation', vary(rng, (78, 62, 46)), rectangle(-trunk, trunk, 0, height + 0.5))]
    clumps = 46
    angle, distance = rng.uniform(0, 2 * np.pi, clumps), np.sqrt(rng.uniform(0, 1, clumps))
    for a, d in zip(angle, np.sort(distance)[::-1], strict=True):
        u, v = radius * d * np.cos(a), height + radius * (0.7 + 0.95 * d * np.sin(a))
        light = 0.72 + 0.4 * (v - height) / (2 * radius) + rng.normal(0, 0.1)
        shape = disc(u, v, radius * rng.uniform(0.2, 0.36), corners=7)
        faces.append(face('vegetation', np.clip(green * light, 0, 240), shape))
    return Thing(np.array([x, 0, z]), faces, layer, upright=True, lot=lot)


def bush(rng: Rng, x: float, z: float, layer: int, lot: float | None = None) -> Thing:
    """A low round shrub."""
    green = vary(rng, (74, 104, 50), 12)
    faces = []
    for _ in range(14):
        u, v = rng.uniform(-0.9, 0.9), rng.uniform(0.1, 0.7)
        light = 0.7 + 0.45 * v + rng.normal(0, 0.08)
        shape = disc(u, v, rng.uniform(0.25, 0.45), corners=7)
        faces.append(face('vegetation', np.clip(green * light, 0, 240), np.maximum(shape, [-9, 0])))
    return Thing(np.array([x, 0, z]), faces, layer, upright=True, lot=lot)


def fence(rng: Rng, x: float, z0: float, z1: float) -> list[Thing]:
    """Wooden planks or metal bars along the pavement, in pieces of two metres."""
    wooden = rng.random() < 0.6
    colour = vary(rng, (136, 104, 70) if wooden else (92, 98, 106), 14)
    height = rng.uniform(1.1, 1.7)
    things = []
    for z in np.arange(z0, z1 - 0.5, 2.0):
        end = min(z + 2.0, z1)
        faces = [
            face('fence', colour * 0.62, [(x, 0, z), (x, 0, end), (x, height, end), (x, height, z)])
        ]
        count = 8 if wooden else 6
        step = (end - z) / count
        for k in range(count):
            a, b = z + k * step + 0.03, z + (k + (0.8 if wooden else 0.45)) * step
            top = height + (0.12 if wooden else 0.05)
            tint = colour * rng.uniform(0.9, 1.12)
            faces.append(face('fence', tint, [(x, 0, a), (x, 0, b), (x, top, b), (x, top, a)]))
        for low in (0.25, height - 0.3):
            shape = [(x, low, z), (x, low, end), (x, low + 0.13, end), (x, low + 0.13, z)]
            faces.append(face('fence', colour * 1.15, shape))
        things.append(Thing(np.array([x, 0, (z + end) / 2]), faces, 2))
    return things


def lamp_post(rng: Rng, x: float, z: float) -> Thing:
    """A street lamp with an arm over the road."""
    grey = vary(rng, (112, 114, 116), 14)
    arm = -1.4 if x > 0 else 1.4
    faces = [
        face('pole', grey * 0.8, rectangle(-0.17, 0.17, 0, 0.7)),
        face('pole', grey, rectangle(-0.1, 0.1, 0, 6.2)),
        face('pole', grey * 1.25, rectangle(-0.1, -0.03, 0, 6.2)),
        face('pole', grey, bar(0, 6.1, arm, 6.5, 0.14)),
        face('pole', grey * 1.3, rectangle(min(arm, arm * 1.3), max(arm, arm * 1.3), 6.4, 6.6)),
    ]
    return standing(x, z, faces)


def traffic_sign(rng: Rng, x: float, z: float) -> Thing:
    """A post with one of five boards: prohibition, duty, warning, priority, information."""
    grey = vary(rng, (128, 130, 130), 10)
    y, r = rng.uniform(2.2, 2.6), rng.uniform(0.42, 0.52)
    red, white = np.array([196, 28, 34]), np.array([232, 230, 226])
    blue, yellow = np.array([28, 78, 176]), np.array([228, 186, 40])
    triangle = np.array([(-1.05, -0.75), (1.05, -0.75), (0, 1.1)])
    stop, turn = bar(-0.16, y, 0.16, y, 0.12), bar(0, y - 0.22, 0, y + 0.22, 0.12)
    boards: list[list[tuple[Colour, Points]]] = [
        [(red, disc(0, y, r)), (white, disc(0, y, 0.66 * r)), ((30, 30, 30), stop)],
        [(white, disc(0, y, r)), (blue, disc(0, y, 0.92 * r)), (white, turn)],
        [(red, triangle * r + (0, y)), (white, triangle * 0.56 * r + (0, y))],
        [(white, disc(0, y, 1.1 * r, corners=4) * 1), (yellow, disc(0, y, 0.85 * r, corners=4))],
        [
            (white, rectangle(-r, r, y - r, y + r)),
            (blue, rectangle(-0.9 * r, 0.9 * r, y - 0.9 * r, y + 0.9 * r)),
            (white, rectangle(-0.12, 0.12, y - 0.25, y + 0.25)),
        ],
    ]
    faces = [face('pole', grey, rectangle(-0.06, 0.06, 0, y))]
    fade = rng.uniform(0.75, 1.0)
    for colour, shape in boards[rng.integers(len(boards))]:
        faces.append(face('traffic sign', np.asarray(colour) * fade, shape))
    return standing(x, z, faces)


def traffic_light(rng: Rng, x: float, z: float) -> Thing:
    """A post with a black box and three lamps, one of them lit."""
    grey = vary(rng, (92, 94, 96), 10)
    low = rng.uniform(2.3, 2.7)
    lamps = [np.array([40, 214, 110]), np.array([250, 190, 40]), np.array([246, 40, 36])]
    lit = rng.integers(3)
    faces = [
        face('pole', grey, rectangle(-0.09, 0.09, 0, low)),
        face('traffic light', (26, 28, 28), rectangle(-0.3, 0.3, low, low + 1.5)),
        face('traffic light', (58, 60, 60), rectangle(-0.3, -0.24, low, low + 1.5)),
    ]
    for index, colour in enumerate(lamps):
        tint = colour if index == lit else colour * 0.22
        faces.append(face('traffic light', tint, disc(0, low + 0.28 + 0.47 * index, 0.2)))
    return standing(x, z, faces)


def pedestrian(rng: Rng, x: float, z: float) -> Thing:
    """A person in mid-step."""
    height = rng.uniform(1.6, 1.9)
    coat, legs = (pick(rng, CLOTHES, 10) for _ in range(2))
    skin = vary(rng, (190, 144, 116) if rng.random() < 0.6 else (112, 76, 56), 10)
    stride = rng.uniform(0.12, 0.32)
    shapes: list[tuple[Colour, Points]] = [
        (legs * 0.8, bar(0.05, 0.9, stride, 0.06, 0.2)),
        (legs, bar(-0.05, 0.9, -stride, 0.06, 0.2)),
        ((34, 30, 28), rectangle(stride - 0.1, stride + 0.18, 0, 0.09)),
        ((34, 30, 28), rectangle(-stride - 0.1, -stride + 0.18, 0, 0.09)),
        (coat * 0.75, bar(-0.2, 1.42, -0.3 - stride / 4, 0.85, 0.14)),
        (coat, [(-0.2, 0.8), (0.2, 0.8), (0.26, 1.45), (-0.26, 1.45)]),
        (coat * 0.75, bar(0.2, 1.42, 0.3 + stride / 4, 0.85, 0.14)),
        (skin, disc(0.3 + stride / 4, 0.8, 0.07, corners=8)),
        (skin * 0.9, rectangle(-0.06, 0.06, 1.4, 1.54)),
        (skin, disc(0, 1.62, 0.135)),
        ((50, 36, 26), disc(-0.01, 1.7, 0.13, 0.08)),
    ]
    scale = height / 1.75
    faces = [face('pedestrian', colour, np.asarray(shape) * scale) for colour, shape in shapes]
    return standing(x, z, faces)


def bicycle(rng: Rng, x: float, z: float) -> Thing:
    """A parked bicycle, side on."""
    paint = pick(rng, PAINTS, 16)
    dark, spokes = np.array([24, 24, 26]), np.array([128, 130, 132])
    rear, front, hub = (-0.55, 0.36), (0.55, 0.36), (-0.08, 0.34)
    seat, head = (-0.2, 0.9), (0.4, 0.86)
    shapes: list[tuple[np.ndarray, np.ndarray]] = []
    for centre in (rear, front):
        shapes += [(dark, disc(*centre, 0.37)), (spokes, disc(*centre, 0.28))]
        shapes += [(dark, disc(*centre, 0.06, corners=8))]
    tubes = (rear, hub), (rear, seat), (hub, seat), (hub, head), (seat, head), (front, head)
    shapes += [
        *((paint, bar(*a, *b, 0.09)) for a, b in tubes),
        (dark, bar(*head, 0.36, 1.08, 0.07)),
        (dark, bar(0.28, 1.08, 0.52, 1.04, 0.07)),
        (dark, bar(-0.36, 0.96, -0.06, 0.94, 0.1)),
    ]
    mirror = rng.choice([-1.0, 1.0])
    faces = [face('bicycle', c, np.asarray(s) * (1.05 * mirror, 1.05)) for c, s in shapes]
    return standing(x, z, faces)


def bin_(rng: Rng, x: float, z: float) -> Thing:
    """A litter bin, which SYNTHIA has no class for: void."""
    tint = vary(rng, (54, 74, 60), 14)
    faces = [
        face('void', tint, [(-0.3, 0), (0.3, 0), (0.36, 0.9), (-0.36, 0.9)]),
        face('void', tint * 0.6, rectangle(-0.4, 0.4, 0.9, 1.0)),
    ]
    return standing(x, z, faces)


def car(rng: Rng, x: float, z: float, away: bool) -> Thing:
    """A car along the road; ``away`` shows its rear to a camera behind it."""
    paint = pick(rng, PAINTS, 14)
    length, width, waist = rng.uniform(3.9, 4.6), 1.75, rng.uniform(0.85, 0.98)
    roof = waist + rng.uniform(0.5, 0.62)
    glass, tyre = np.array([44, 54, 64]), np.array([24, 24, 26])
    half, w = length / 2, width / 2

    def level(side: float, rear: float, front: float, y: float) -> list[tuple]:
        return ground(x - side, x + side, z + rear, z + front, y)

    faces = [face(None, (38, 38, 42), level(w + 0.15, -half, half, 0))]

    def prism(bottom: list[tuple], top: list[tuple], sides: np.ndarray, ends: np.ndarray) -> None:
        shades = zip((ends, sides, ends, sides), (0.85, 0.95, 0.7, 0.9), strict=True)
        for i, (colour, light) in enumerate(shades):
            j = (i + 1) % 4
            faces.append(face('car', colour * light, [bottom[i], bottom[j], top[j], top[i]]))
        faces.append(face('car', np.minimum(paint * 1.15, 250), top))

    prism(level(w, -half, half, 0.28), level(w, -half, half, waist), paint, paint)
    for end, right in ((-half, 1), (half, -1)):
        # Bumper, lamps and number plate of the two ends.
        origin, along = (x - right * w, 0, z + end * 1.002), (right, 0, 0)
        lamp = np.array([240, 236, 210] if (end > 0) == away else [190, 22, 22])
        faces.append(face('car', tyre * 1.6, panel(origin, along, 0, width, 0.28, 0.45)))
        for u in (0.06, width - 0.44):
            faces.append(face('car', lamp, panel(origin, along, u, u + 0.38, 0.6, 0.78)))
        plate = panel(origin, along, w - 0.26, w + 0.26, 0.47, 0.6)
        faces.append(face('car', (220, 220, 200), plate))
    bonnet, boot = 0.32 * length, 0.25
    rear, front = (boot - half, half - bonnet) if away else (bonnet - half, half - boot)
    top = level(w - 0.16, rear + 0.35, front - 0.45, roof)
    prism(level(w, rear, front, waist), top, glass, glass)
    for side in (-1, 1):
        for wheel in (-half + 0.75, half - 0.75):
            for radius, tint in ((0.34, tyre), (0.19, np.array([150, 152, 156]))):
                u, v = disc(0, 0.34, radius).T
                rim = np.column_stack([0 * u + x + side * (w + 0.01), v, z + wheel + side * u])
                faces.append(face('car', tint, rim))
    return Thing(np.array([x, 0, z]), faces, 3, solid=True)


# --- the street -------------------------------------------------------------------------------


def street(rng: Rng) -> tuple[list[Face], list[Thing]]:
    """One random street: the ground in drawing order, and the things that stand on it."""
    crossing = rng.choice([-1, 1]) * rng.uniform(16, 27) if rng.random() < 0.6 else 999.0
    return _ground(rng, crossing), _roadside(rng, crossing) + _traffic(rng, crossing)


def _ground(rng: Rng, crossing: float) -> list[Face]:
    asphalt, paving = vary(rng, (92, 92, 96), 12), vary(rng, (146, 138, 130), 12)
    grass, white = vary(rng, (92, 116, 60), 10), np.array([222, 220, 212])
    faces = [face('vegetation', grass, ground(-150, 150, -150, 150))]
    for z in np.arange(-128, 128, 8.0):
        for side in (-1, 1):
            x0, x1 = sorted((side * KERB, side * WALK))
            tint = paving * rng.uniform(0.96, 1.04)
            faces.append(face('sidewalk', tint, ground(x0, x1, z, z + 8)))
            for joint in range(0, 8, 2):
                line = ground(x0, x1, z + joint, z + joint + 0.07)
                faces.append(face('sidewalk', tint * 0.8, line))
            x0, x1 = sorted((side * ROAD, side * KERB))
            faces.append(face('sidewalk', paving * 1.22, ground(x0, x1, z, z + 8)))
        faces.append(face('road', asphalt * rng.uniform(0.97, 1.03), ground(-ROAD, ROAD, z, z + 8)))
    if abs(crossing) < 100:
        faces.append(face('road', asphalt, ground(-90, 90, crossing - 4.5, crossing + 4.5)))
    for _ in range(10):
        # Repairs, stains and manholes.
        x, z = rng.uniform(-4.4, 4.4), rng.uniform(-40, 40)
        w, d = rng.uniform(0.3, 1.1), rng.uniform(0.5, 4)
        faces.append(
            face('road', asphalt * rng.uniform(0.72, 0.9), ground(x - w, x + w, z - d, z + d))
        )
    for z in np.arange(-120, 120, 6.0):
        if abs(z + 1.5 - crossing) > 7:
            faces.append(face('lanemarking', white, ground(-0.1, 0.1, z, z + 3)))
    for side in (-1, 1):
        x0, x1 = sorted((side * 3.25, side * 3.4))
        for z in np.arange(-120, 120, 8.0):
            if abs(z + 4 - crossing) > 10:
                faces.append(face('lanemarking', white * 0.95, ground(x0, x1, z, z + 8)))
    if abs(crossing) < 100:
        for near in (-1, 1):
            z0, z1 = sorted((crossing + near * 5.0, crossing + near * 7.6))
            for x in np.arange(-4.8, 4.8, 1.0):
                faces.append(face('lanemarking', white, ground(x, x + 0.55, z0, z1)))
    return faces


def _roadside(rng: Rng, crossing: float) -> list[Thing]:
    things = []
    for angle in np.linspace(0, 2 * np.pi, 40, endpoint=False):
        # What closes the view at the end of each street.
        x, z = 120 * np.sin(angle), 120 * np.cos(angle)
        if rng.random() < 0.5:
            things.append(tree(rng, x, z, 0, size=rng.uniform(2.5, 4)))
        else:
            tint, high = pick(rng, FACADES), rng.uniform(8, 22)
            shape = rectangle(-9, 9, 0, high)
            things.append(Thing(np.array([x, 0, z]), [face('building', tint, shape)], 0, True))
    for side in (-1, 1):
        z = -110.0
        while z < 110:
            end = z + rng.uniform(10, 19)
            if z < crossing + 6.5 and end > crossing - 6.5:
                if crossing - 6.5 - z > 7:
                    things.append(building(rng, side, WALK + 0.2, z, crossing - 6.5))
                z = crossing + 6.5
                continue
            if rng.random() < 0.68:
                things.append(building(rng, side, WALK + rng.choice([0.2, 0.2, 1.5]), z, end - 0.1))
            else:
                for _ in range(4):
                    x, at = side * rng.uniform(11, 21), rng.uniform(z + 2, end - 2)
                    things.append(tree(rng, x, at, 1, (z + end) / 2, 1.4))
                for _ in range(3):
                    x, at = side * rng.uniform(9, 12), rng.uniform(z + 1, end - 1)
                    things.append(bush(rng, x, at, 1, (z + end) / 2))
                if rng.random() < 0.85:
                    things += fence(rng, side * (WALK - 0.1), z, end)
            z = end
    return things


def _traffic(rng: Rng, crossing: float) -> list[Thing]:
    things = []

    def somewhere(low: float, high: float) -> float:
        return rng.choice([-1, 1]) * rng.uniform(low, high)

    def clear(z: float) -> bool:
        return bool(abs(z - crossing) > 8)

    for side in (-1, 1):
        for z in np.arange(-75 + rng.uniform(0, 20), 90, 26):
            if clear(z):
                things.append(lamp_post(rng, side * 5.9, z))
        for z in np.arange(-60 + rng.uniform(0, 10), 70, rng.choice([12, 17, 40])):
            if clear(z) and abs(z) > 6:
                things.append(tree(rng, side * 6.1, z + 3, 3))
        for z in np.arange(-60 + rng.uniform(0, 6), 70, 6.2):
            if clear(z) and abs(z) > 6 and rng.random() < 0.3:
                things.append(car(rng, side * 4.3, z, away=side > 0))
        for z in np.arange(-70, 80, 16) + rng.uniform(0, 8):
            if abs(z) > 9 and rng.random() < 0.35:
                things.append(car(rng, side * 1.7, z, away=side > 0))
    for _ in range(rng.integers(1, 4)):
        things.append(traffic_sign(rng, rng.choice([-1, 1]) * 5.85, somewhere(6, 22)))
    for _ in range(rng.integers(2, 6)):
        things.append(
            pedestrian(rng, rng.choice([-1, 1]) * rng.uniform(6.3, 7.7), somewhere(3, 24))
        )
    if abs(crossing) < 100 and rng.random() < 0.6:
        things.append(pedestrian(rng, rng.uniform(-4, 4), crossing - np.sign(crossing) * 6.3))
    if rng.random() < 0.5:
        things.append(bin_(rng, rng.choice([-1, 1]) * 6.2, somewhere(4, 20)))
    if rng.random() < 0.5:
        things.append(bicycle(rng, rng.choice([-1, 1]) * rng.uniform(6.2, 7.4), somewhere(7, 15)))
    if abs(crossing) < 100 and rng.random() < 0.8:
        near = crossing - np.sign(crossing) * 8.4
        things.append(traffic_light(rng, rng.choice([-1, 1]) * 5.9, near))
    return things


# --- pictures ---------------------------------------------------------------------------------


def render(
    faces: list[Face], things: list[Thing], camera: Camera, sky: np.ndarray, haze: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street back to front.

    Returns:
        Image, uint8 RGB, and label, uint8 ids, of the shape of ``sky``.
    """
    height, width = sky.shape[:2]
    image, label = sky.copy(), np.full((height, width), ID['sky'], np.uint8)
    centre, focal = np.array([width / 2, camera.row * width]), camera.focal * width
    right = np.array([np.cos(camera.yaw), 0, -np.sin(camera.yaw)])
    ahead = np.array([np.sin(camera.yaw), 0, np.cos(camera.yaw)])

    def order(thing: Thing) -> tuple[float, float, float]:
        offset = thing.anchor - camera.position
        lot = 0.0 if thing.lot is None else abs(thing.lot - camera.position[2])
        return thing.layer, -lot, -np.hypot(offset[0], offset[2])

    things = sorted(things, key=order)
    drawn = faces + [item for thing in things for item in thing.faces]
    owner = np.repeat(np.arange(len(things)), [len(thing.faces) for thing in things])
    anchor, upright, solid = np.zeros((3, len(drawn), 3))
    anchor[len(faces) :] = np.array([thing.anchor for thing in things])[owner]
    upright[len(faces) :, 0] = np.array([thing.upright for thing in things])[owner]
    solid[len(faces) :, 0] = np.array([thing.solid for thing in things])[owner]

    sizes = np.array([len(item.points) for item in drawn])
    starts = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(len(drawn)), sizes)
    points = np.concatenate([item.points for item in drawn])
    turned = anchor[of] + points[:, :1] * right + points[:, 1:2] * (0, 1, 0)
    world = np.where(upright[of, :1] > 0, turned, points) - camera.position
    local = world @ np.stack([right, (0, 1, 0), ahead], axis=1)
    nearest = np.minimum.reduceat(local[:, 2], starts)
    farthest = np.maximum.reduceat(local[:, 2], starts)
    distance = np.hypot(*(np.add.reduceat(local[:, ::2], starts) / sizes[:, None]).T)

    pixels = centre + focal * local[:, :2] * (1, -1) / np.maximum(local[:, 2:], NEAR)
    following = np.arange(len(points)) + 1
    following[starts + sizes - 1] = starts
    (x, y), (next_x, next_y) = pixels.T, pixels[following].T
    turn = np.add.reduceat(x * next_y - y * next_x, starts)
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    inside = ((high >= 0) & (low <= (width, height))).all(1)
    whole = (nearest >= NEAR) & inside & ~((solid[:, 0] > 0) & (turn > 0))
    crossing = (nearest < NEAR) & (farthest > NEAR)

    fade = np.exp(-distance / haze)[:, None]
    horizon = sky[int(camera.row * width)].mean(0)
    colours = fade * np.array([item.colour for item in drawn]) + (1 - fade) * horizon
    for index in np.flatnonzero(whole | crossing):
        corners = slice(starts[index], starts[index] + sizes[index])
        shape = pixels[corners] if whole[index] else _clip(local[corners], centre, focal)
        # Four steps a pixel; OpenCV's own arithmetic overflows beyond 2^15 pixels.
        shape = np.round(4 * shape.clip(-30000, 30000)).astype(np.int32)
        cv2.fillConvexPoly(image, shape, colours[index].tolist(), shift=2)
        if (id_ := drawn[index].class_id) is not None:
            cv2.fillConvexPoly(label, shape, id_, shift=2)
    return image, label


def _clip(corners: np.ndarray, centre: np.ndarray, focal: float) -> np.ndarray:
    # Sutherland-Hodgman against the near plane, then projected.
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    x, y, z = np.array(kept).T
    return centre + focal * np.column_stack([x / z, -y / z])


def _noise(rng: Rng, shape: tuple[int, int], cell: int) -> np.ndarray:
    height, width = shape
    small = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


ROUGHNESS = dict(sky=0.01, building=0.05, road=0.05, sidewalk=0.06, vegetation=0.16, fence=0.07)


def photograph(rng: Rng, image: np.ndarray, label: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Give a drawing surface texture, uneven light, blur and sensor noise."""
    amplitude = np.full(256, 0.03, np.float32)
    for name, value in ROUGHNESS.items():
        amplitude[ID[name]] = value
    grain = sum(_noise(rng, label.shape, cell) for cell in (1, 2, 5)) / 1.6
    gain = 1 + amplitude[label] * grain
    gain *= np.where(label == ID['sky'], 1, 1 + 0.07 * _noise(rng, label.shape, 40))
    picture = image.astype(np.float32) * gain[..., None] * light.astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 0.65)))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(2, 5)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _sky(rng: Rng, height: int, width: int, row: float) -> np.ndarray:
    horizon = int(row * width)
    top, bottom = vary(rng, (104, 146, 200), 14), vary(rng, (200, 212, 222), 8)
    blend = np.clip(np.arange(height) / horizon, 0, 1)[:, None, None] ** 1.3
    sky = np.broadcast_to((1 - blend) * top + blend * bottom, (height, width, 3))
    cloud = (
        sum(_noise(rng, (height, width), cell) * cell for cell in (width // 6, width // 14)) / width
    )
    cover = np.clip(cloud * 5 + rng.uniform(-0.5, 0.5), 0, 0.85)[..., None]
    return ((1 - cover) * sky + cover * 232).astype(np.uint8)


def render_frame(frame: int, seed: int, width: int, height: int) -> dict[str, tuple]:
    """Render the eight views of one frame.

    Args:
        frame: Number of the frame; a frame is the same whatever the others are.
        seed: Seed of the data set.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        Under ``'SIDE/CAMERA'``: image, uint8 RGB, shape (height, width, 3); and label, uint8 ids
        0-15, shape (height, width).

    Example:
        >>> image, label = render_frame(0, 0, 128, 64)['Stereo_Left/Omni_F']
        >>> image.shape, label.shape
        ((64, 128, 3), (64, 128))
    """
    rng = np.random.default_rng([seed, frame])
    faces, things = street(rng)
    light = rng.uniform(0.72, 1.18) * np.array([rng.uniform(0.94, 1.08), 1, rng.uniform(0.9, 1.08)])
    haze, focal = rng.uniform(110, 300), 0.6
    car_x, eye = 1.7 + rng.normal(0, 0.25), rng.uniform(1.5, 1.8)
    big = SUPERSAMPLING * width, SUPERSAMPLING * height
    views = {}
    for index, camera_name in enumerate(CAMERAS):
        yaw = YAW[camera_name] + rng.normal(0, 0.03)
        row = 0.5 * height / width * rng.uniform(0.88, 1.0)
        sky = _sky(rng, big[1], big[0], row)
        for side_name, offset in zip(SIDES, (-BASELINE / 2, BASELINE / 2), strict=True):
            rng_view = np.random.default_rng([seed, frame, index, SIDES.index(side_name)])
            position = np.array([car_x + offset * np.cos(yaw), eye, -offset * np.sin(yaw)])
            camera = Camera(position, yaw, focal, row)
            image, label = render(faces, things, camera, sky, haze)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            label = np.ascontiguousarray(label[::SUPERSAMPLING, ::SUPERSAMPLING])
            views[f'{side_name}/{camera_name}'] = photograph(rng_view, image, label, light), label
    return views


def _write_frame(frame: int, seed: int, width: int, height: int, folder: Path) -> None:
    cv2.setNumThreads(1)
    paths = {
        f'{side}/{camera}': [
            folder / kind / side / camera / f'{frame:06d}.png' for kind in ('RGB', 'GT/LABELS')
        ]
        for side in SIDES
        for camera in CAMERAS
    }
    if all(path.exists() for pair in paths.values() for path in pair):
        return
    for view, (image, label) in render_frame(frame, seed, width, height).items():
        raw = np.zeros((height, width, 3), np.uint16)
        raw[..., 2] = label
        write_atomically(paths[view][0], encode_png(image[..., ::-1]))
        write_atomically(paths[view][1], encode_png(raw))


TOOL = 'mini_scenes'


def write_mini_scenes(
    out: str | Path, frames: int, width: int = 384, height: int = 192, seed: int = 0
) -> None:
    """Render ``frames`` x 8 images with labels into the layout of a raw SYNTHIA-SEQS sequence.

    ``out`` appears under its name only when it is complete, and a killed run is completed by
    running it again; where it is complete, nothing is done.

    Raises:
        ValueError: ``frames`` or the size is too small.
        FileExistsError: ``out`` or ``out.partial`` holds something else than this very rendering.
    """
    if frames < 1 or width < 32 or height < 32:
        raise ValueError(
            f'Need frames >= 1 and a size of at least 32x32, not {frames}, {width}x{height}'
        )
    described = json.dumps(dict(frames=frames, width=width, height=height, seed=seed))
    if is_complete(Path(out), TOOL, described):
        return
    with whole_folder(Path(out), TOOL, described) as (folder, _):
        write = partial(_write_frame, seed=seed, width=width, height=height, folder=folder)
        for _ in parallel_map(write, range(frames), 'Rendering mini scenes'):
            pass
