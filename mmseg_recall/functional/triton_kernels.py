"""The class-weighted losses and their decode-head tail in Triton; launched from gpu.py.

A program takes a strip of pixels. Its logits, some classes at a time, are a tile (classes, pixels)
that lives in registers, so that each pass reads the logits once. ``resized`` logits are those of
the low resolution, from which a tile is made where it is needed: they stay in the cache, and the
full resolution exists nowhere. Nothing is added up by atomics: every program writes sums of its
own, which gpu.py adds in a fixed order.

NaN and infinity mean what they mean in torch.
"""

# Annotations are not postponed (PEP 563) as elsewhere: Triton's interpreter reads them.
import triton
import triton.language as tl

# An id that no label has: a strip without unknown labels has the range (NO_ID, -NO_ID).
NO_ID = tl.constexpr(2**40)
LEAST = tl.constexpr(-(2**31))


@triton.jit
def order(x):
    """Integers in the order in which torch's argmax takes floats: -0 is 0, NaN is the largest."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(x == x, key, 0x7FFFFFFF)


@triton.jit
def read_labels(target, at, inside, num_classes, ignore_index, IGNORES: tl.constexpr):
    """(label, or -1 where the pixel takes no part; the id itself; whether it means nothing)."""
    ids = tl.load(target + at, mask=inside, other=0)
    known = (ids >= 0) & (ids < num_classes)
    taken = inside & known
    unknown = inside & (known == 0)
    if IGNORES:
        taken = taken & (ids != ignore_index)
        unknown = unknown & (ids != ignore_index)
    return tl.where(taken, ids, -1).to(tl.int32), ids, unknown


@triton.jit
def load_tile(
    logits,
    classes,
    class_stride,
    mask,
    other,
    at,
    right,
    down,
    weight_x,
    weight_y,
    RESIZED: tl.constexpr,
):
    """Logits (classes, pixels) in float32: at ``at``, or between there and ``right`` and ``down``.

    ``right`` and ``down`` are the distances of the neighbours, ``weight_x`` and ``weight_y`` their
    weights.
    """
    from_ = logits + classes.to(tl.int64)[:, None] * class_stride + at[None, :]
    x = tl.load(from_, mask=mask, other=other).to(tl.float32)
    if RESIZED:
        weight_x, weight_y = weight_x[None, :], weight_y[None, :]
        x_right = tl.load(from_ + right[None, :], mask=mask, other=other).to(tl.float32)
        from_ += down[None, :]
        below = tl.load(from_, mask=mask, other=other).to(tl.float32)
        below_right = tl.load(from_ + right[None, :], mask=mask, other=other).to(tl.float32)
        x = (1 - weight_x) * x + weight_x * x_right
        below = (1 - weight_x) * below + weight_x * below_right
        # What is masked may be infinite, and weigh nothing.
        x = tl.where(mask, (1 - weight_y) * x + weight_y * below, other)
    return x


@triton.jit
def score(
    logits,
    target,
    pixel_weight,
    sums,
    counts,
    id_range,
    tops,
    scales,
    first_y,
    weights_y,
    first_x,
    weights_x,
    num_pixels,
    width,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    RESIZED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """What a strip adds, and of each of its pixels the largest logit and 1 / sum exp(x - top).

    Writes for program g: sums[g, class], the negative log-likelihood times the weight of the pixel;
    counts[g, :, class], pixels, true positives and predictions; id_range[g, :], the smallest and
    the largest id that means nothing. Programs are (strip, image); pixels are those of the target.
    """
    strip, image = tl.program_id(0), tl.program_id(1)
    program = image.to(tl.int64) * tl.num_programs(0) + strip
    pixel = strip * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    at_pixel = image.to(tl.int64) * num_pixels + pixel
    label, ids, unknown = read_labels(target, at_pixel, inside, num_classes, ignore_index, IGNORES)
    tl.store(id_range + 2 * program, tl.min(tl.where(unknown, ids, NO_ID), 0))
    tl.store(id_range + 2 * program + 1, tl.max(tl.where(unknown, ids, -NO_ID), 0))

    logits += image.to(tl.int64) * image_stride
    weight_x = tl.zeros([PIXELS], tl.float32)
    weight_y = weight_x
    if RESIZED:
        row, column = pixel // width, pixel % width
        weight_y = tl.load(weights_y + row, mask=inside, other=0.0)
        weight_x = tl.load(weights_x + column, mask=inside, other=0.0)
        at = tl.load(first_y + row, mask=inside, other=0).to(tl.int64) * row_stride
        at += tl.load(first_x + column, mask=inside, other=0) * column_stride
    else:
        at = pixel.to(tl.int64) * column_stride
    # Where a neighbour weighs nothing it may not exist.
    down = (weight_y > 0).to(tl.int32) * row_stride
    right = (weight_x > 0).to(tl.int32) * column_stride

    shift = tl.zeros([PIXELS], tl.float32)
    total = tl.zeros([PIXELS], tl.float32)
    own = tl.zeros([PIXELS], tl.float32)
    best = tl.full([PIXELS], LEAST, tl.int32)
    prediction = tl.zeros([PIXELS], tl.int32)
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)
        mask = (classes < num_classes)[:, None] & inside[None, :]
        x = load_tile(
            logits,
            classes,
            class_stride,
            mask,
            float('-inf'),
            at,
            right,
            down,
            weight_x,
            weight_y,
            RESIZED,
        )
        key = tl.where(mask, order(x), LEAST)
        tile_best = tl.max(key, 0)
        is_best = key == tile_best[None, :]
        tile_prediction = tl.min(tl.where(is_best, classes[:, None], 0x7FFFFFFF), 0)
        prediction = tl.where(tile_best > best, tile_prediction, prediction)
        best = tl.maximum(best, tile_best)
        top = (best ^ ((best >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
        # Minus infinity less itself is no number: a class that is impossible adds nothing.
        new_shift = tl.where(top == float('-inf'), 0.0, top)
        total = tl.where(total == 0, 0.0, total * tl.exp(shift - new_shift))
        total += tl.sum(tl.exp(x - new_shift[None, :]), 0)
        shift = new_shift
        own += tl.sum(tl.where(classes[:, None] == label[None, :], x, 0.0), 0)

    nll = tl.log(total) - (own - shift)
    if WEIGHTED:
        nll *= tl.load(pixel_weight + at_pixel, mask=inside, other=0.0)
    tl.store(tops + at_pixel, shift, mask=inside)
    tl.store(scales + at_pixel, 1.0 / total, mask=inside)

    sums += program * num_classes
    counts += program * 3 * num_classes
    hit = (prediction == label).to(tl.int32)
    prediction = tl.where(label >= 0, prediction, -1)
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)
        mask = classes < num_classes
        labelled = classes[:, None] == label[None, :]
        tl.store(sums + classes, tl.sum(tl.where(labelled, nll[None, :], 0.0), 1), mask=mask)
        # Two counts in one number.
        pixels_and_hits = tl.sum(tl.where(labelled, (1 + (hit << 16))[None, :], 0), 1)
        predicted = tl.sum((classes[:, None] == prediction[None, :]).to(tl.int32), 1)
        tl.store(counts + classes, pixels_and_hits & 0xFFFF, mask=mask)
        tl.store(counts + num_classes + classes, pixels_and_hits >> 16, mask=mask)
        tl.store(counts + 2 * num_classes + classes, predicted, mask=mask)


@triton.jit
def differentiate(
    logits,
    target,
    pixel_weight,
    class_factor,
    tops,
    scales,
    grad,
    num_pixels,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    column_stride,
    grad_image_stride,
    grad_class_stride,
    grad_column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Writes factor * (softmax - one-hot). Programs are (strip, image)."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    at_pixel = image * num_pixels + pixel
    label, _, _ = read_labels(target, at_pixel, inside, num_classes, ignore_index, IGNORES)
    factor = tl.load(class_factor + label, mask=label >= 0, other=0.0)
    if WEIGHTED:
        factor *= tl.load(pixel_weight + at_pixel, mask=inside, other=0.0)
    top = tl.load(tops + at_pixel, mask=inside, other=0.0)
    scale = tl.load(scales + at_pixel, mask=inside, other=0.0)
    logits += image * image_stride
    grad += image * grad_image_stride
    wide_pixel = pixel.to(tl.int64)[None, :]
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)[:, None]
        mask = (classes < num_classes) & inside[None, :]
        from_ = logits + classes.to(tl.int64) * class_stride + wide_pixel * column_stride
        x = tl.load(from_, mask=mask, other=0.0).to(tl.float32)
        p = tl.exp(x - top[None, :]) * scale[None, :]
        y = factor[None, :] * (p - (classes == label[None, :]).to(tl.float32))
        to = grad + classes.to(tl.int64) * grad_class_stride + wide_pixel * grad_column_stride
        tl.store(to, y.to(grad.dtype.element_ty), mask=mask)


@triton.jit
def differentiate_resized(
    logits,
    target,
    class_factor,
    tops,
    scales,
    grad,
    first_y,
    weights_y,
    first_x,
    weights_x,
    starts_y,
    stops_y,
    starts_x,
    stops_x,
    most_columns,
    height,
    width,
    low_height,
    low_width,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    IGNORES: tl.constexpr,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes to ``grad``, contiguous, what the full resolution gives to the low one.

    Programs are (some columns, row, classes of an image), all of the low resolution. Each collects
    from those pixels of the target that its own logits take part in, rows starts_y to stops_y and
    columns starts_x to stops_x, and so makes the softmax of a pixel again for each of the four
    logits between which it lies.
    """
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1)
    tiles = tl.cdiv(num_classes, CLASSES)
    image = (tl.program_id(2) // tiles).to(tl.int64)
    classes = tl.program_id(2) % tiles * CLASSES + tl.arange(0, CLASSES)
    is_class, is_column = classes < num_classes, column < low_width
    start_x = tl.load(starts_x + column, mask=is_column, other=0)
    stop_x = tl.load(stops_x + column, mask=is_column, other=0)
    logits += image * image_stride
    total = tl.zeros([CLASSES, COLUMNS], tl.float32)
    for y in range(tl.load(starts_y + row), tl.load(stops_y + row)):
        weight = tl.load(weights_y + y)
        first_row = tl.load(first_y + y)
        weight_y = tl.zeros([COLUMNS], tl.float32) + weight
        down = (weight_y > 0).to(tl.int32) * row_stride
        share_y = tl.where(first_row == row, 1 - weight, weight)
        for step in range(0, most_columns):
            x = start_x + step
            inside = x < stop_x
            mask = is_class[:, None] & inside[None, :]
            weight_x = tl.load(weights_x + x, mask=inside, other=0.0)
            first_column = tl.load(first_x + x, mask=inside, other=0)
            right = (weight_x > 0).to(tl.int32) * column_stride
            at = first_row.to(tl.int64) * row_stride + first_column * column_stride
            at_pixel = (image * height + y) * width + x
            label, _, _ = read_labels(target, at_pixel, inside, num_classes, ignore_index, IGNORES)
            factor = tl.load(class_factor + label, mask=label >= 0, other=0.0)
            factor *= share_y * tl.where(first_column == column, 1 - weight_x, weight_x)
            top = tl.load(tops + at_pixel, mask=inside, other=0.0)
            scale = tl.load(scales + at_pixel, mask=inside, other=0.0)
            tile = load_tile(
                logits,
                classes,
                class_stride,
                mask,
                0.0,
                at,
                right,
                down,
                weight_x,
                weight_y,
                True,
            )
            p = tl.exp(tile - top[None, :]) * scale[None, :]
            one_hot = (classes[:, None] == label[None, :]).to(tl.float32)
            total += factor[None, :] * (p - one_hot)
    to = grad + (image * num_classes + classes.to(tl.int64)[:, None]) * low_height * low_width
    to += row * low_width + column[None, :]
    tl.store(to, total, mask=is_class[:, None] & is_column[None, :])
