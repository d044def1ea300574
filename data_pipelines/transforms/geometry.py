"""Boxes, crops, mirror images and rotations of labels, batched, in TensorFlow.

Every function takes leading batch axes, works eagerly and in graphs, and keeps the
type of its floats. Pixel coordinates put (0, 0) at the centre of the first pixel. Boxes
named ``xyxy`` are corners. Flip permutations come from ``hmr_jax.body.joint_sets``.
"""

import tensorflow as tf


def clip_box(box_xywh, width, height):
    """Corners of a box, inside the image.

    Args:
        box_xywh: [..., 4] px, left, top, width, height.
        width: [...] px, of the image.
        height: [...] px.

    Returns:
        [..., 4] px: left, top, right, bottom; the last pixel counts, so that a box of
        width 1 has equal left and right.

    Source: specs/ikol.md, section 14.1.
    """
    x, y, w, h = tf.unstack(box_xywh, axis=-1)
    zero = tf.zeros_like(x)
    right = tf.minimum(width - 1, x + tf.maximum(zero, w - 1))
    bottom = tf.minimum(height - 1, y + tf.maximum(zero, h - 1))
    left = tf.clip_by_value(x, zero, tf.maximum(right, zero))
    top = tf.clip_by_value(y, zero, tf.maximum(bottom, zero))
    right, bottom = tf.maximum(right, left), tf.maximum(bottom, top)
    return tf.stack([left, top, right, bottom], axis=-1)


def square_crop(box_xyxy, padding):
    """Centre and side of the square around a box.

    Args:
        box_xyxy: [..., 4] px.
        padding: [...] or scalar; side of the square over the longer side of the box.

    Returns:
        centre [..., 2] px and side [...] px (at least 1).
    """
    low, high = box_xyxy[..., :2], box_xyxy[..., 2:]
    longest = tf.reduce_max(high - low, axis=-1)
    return (low + high) / 2, tf.maximum(longest * padding, tf.ones_like(longest))


def crop_affine(centre, side, rotation_rad, size_px):
    """Image pixel to crop pixel.

    Args:
        centre: [..., 2] px, of the rectangle in the image.
        side: [...] px, or [..., 2] its width and height, which are stretched to the
            crop's.
        rotation_rad: [...]; by which the rectangle is turned in the image, so that the
            content turns the other way.
        size_px: side of the crop, or its width and height.

    Returns:
        [..., 2, 3]: p -> size/side R(-rotation) (p - centre) + size/2.

    Source: specs/ikol.md, section 14.1; specs/i2l_meshnet.md, section 10.3;
        specs/int_hmr.md, section 13; specs/pose_hg.md, section 6.
    """
    width, height = size_px if isinstance(size_px, tuple) else (size_px, size_px)
    kind = centre.dtype
    # The shifts are differences of large numbers: float32 would lose a bit or two.
    centre, side = tf.cast(centre, tf.float64), tf.cast(side, tf.float64)
    rotation_rad = tf.cast(rotation_rad, tf.float64)
    if len(side.shape) == len(centre.shape):
        scale_x, scale_y = width / side[..., 0], height / side[..., 1]
    else:
        scale_x, scale_y = width / side, height / side
    cos, sin = tf.cos(rotation_rad), tf.sin(rotation_rad)
    x, y = centre[..., 0], centre[..., 1]
    first = [scale_x * cos, scale_x * sin, width / 2 - scale_x * (cos * x + sin * y)]
    second = [-scale_y * sin, scale_y * cos, height / 2 + scale_y * (sin * x - cos * y)]
    rows = [tf.stack(first, axis=-1), tf.stack(second, axis=-1)]
    return tf.cast(tf.stack(rows, axis=-2), kind)


def compose_affine(outer, inner):
    """The affine map [..., 2, 3] that applies ``inner`` first and then ``outer``."""
    linear = tf.linalg.matmul(outer[..., :2], inner[..., :2])
    shift = tf.linalg.matvec(outer[..., :2], inner[..., 2]) + outer[..., 2]
    return tf.concat([linear, shift[..., None]], axis=-1)


def mirror_affine(flip, width):
    """Pixel of an image to pixel of its mirror image, where it is mirrored.

    Args:
        flip: bool [...].
        width: [...] px.

    Returns:
        [..., 2, 3]: x -> width - 1 - x where ``flip``, else the identity.
    """
    zero, one = tf.zeros_like(width), tf.ones_like(width)
    sign = tf.where(flip, -one, one)
    first = tf.stack([sign, zero, tf.where(flip, width - 1, zero)], axis=-1)
    return tf.stack([first, tf.stack([zero, one, zero], axis=-1)], axis=-2)


def invert_affine(affine):
    """Inverse of 2D affine maps [..., 2, 3]."""
    a, b, tx = tf.unstack(affine[..., 0, :], axis=-1)
    c, d, ty = tf.unstack(affine[..., 1, :], axis=-1)
    determinant = a * d - b * c
    first = tf.stack([d, -b, b * ty - d * tx], axis=-1)
    second = tf.stack([-c, a, c * tx - a * ty], axis=-1)
    return tf.stack([first, second], axis=-2) / determinant[..., None, None]


def apply_affine(affine, points):
    """Map 2D points.

    Args:
        affine: [..., 2, 3].
        points: [..., N, 2].

    Returns:
        [..., N, 2].
    """
    x, y = points[..., :1], points[..., 1:]
    a = affine[..., None, :, :]
    return x * a[..., 0] + y * a[..., 1] + a[..., 2]


def project(points_cam_m, intrinsics):
    """Perspective projection.

    Args:
        points_cam_m: [..., N, 3] metres, before the camera.
        intrinsics: [..., 3, 3] px.

    Returns:
        [..., N, 2] px; finite (but wrong) at depths of a centimetre and less.
    """
    depth = points_cam_m[..., 2:]
    safe = tf.where(depth > 0.01, depth, tf.ones_like(depth))
    x, y = points_cam_m[..., :1] / safe, points_cam_m[..., 1:2] / safe
    k = intrinsics[..., None, :2, :]
    return x * k[..., 0] + y * k[..., 1] + k[..., 2]


def invert_intrinsics(intrinsics):
    """Inverse of pinhole matrices [..., 3, 3] in closed form."""
    fx, skew, cx = tf.unstack(intrinsics[..., 0, :], axis=-1)
    fy, cy = intrinsics[..., 1, 1], intrinsics[..., 1, 2]
    zero, one = tf.zeros_like(fx), tf.ones_like(fx)
    first = [one / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy)]
    rows = [first, [zero, one / fy, -cy / fy], [zero, zero, one]]
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)


def flip_points_cam(points, permutation):
    """3D points in the mirrored camera.

    Args:
        points: [..., J, C], x first; further columns (validity) move along.
        permutation: J indices of mirror images.

    Returns:
        [..., J, C].
    """
    flipped = tf.concat([-points[..., :1], points[..., 1:]], axis=-1)
    return tf.gather(flipped, permutation, axis=-2)


def flip_axis_angle(pose, permutation):
    """Rotations of the mirrored body.

    Args:
        pose: [..., J, 3] rad, axis-angle.
        permutation: J indices of mirror images.

    Returns:
        [..., J, 3] rad.
    """
    flipped = tf.concat([pose[..., :1], -pose[..., 1:]], axis=-1)
    return tf.gather(flipped, permutation, axis=-2)


def flip_twist(cos_sin, weight, permutation):
    """Twists of the mirrored body.

    Args:
        cos_sin: [..., J - 1, 2] of joints 1, 2, ...
        weight: [..., J - 1] or [..., J - 1, 2].
        permutation: J indices of mirror images, the root first.

    Returns:
        cos_sin and weight of the same shapes.
    """
    order = [joint - 1 for joint in permutation[1:]]
    flipped = tf.concat([cos_sin[..., :1], -cos_sin[..., 1:]], axis=-1)
    axis = len(cos_sin.shape) - 2
    return tf.gather(flipped, order, axis=axis), tf.gather(weight, order, axis=axis)


def flip_intrinsics(intrinsics, width):
    """The camera that sees the mirrored world as the mirrored image.

    Args:
        intrinsics: [..., 3, 3] px.
        width: [...] px.

    Returns:
        [..., 3, 3] px: principal point at width - 1 - cx, skew negated.
    """
    first, rest = intrinsics[..., 0, :], intrinsics[..., 1:, :]
    fx, skew, cx = tf.unstack(first, axis=-1)
    first = tf.stack([fx, -skew, width - 1 - cx], axis=-1)
    return tf.concat([first[..., None, :], rest], axis=-2)


def axis_angle_to_quaternion(pose):
    """Quaternions (cos(a/2), v sin(a/2)/a), w < 0 where a > pi.

    Args:
        pose: [..., 3] rad.

    Returns:
        [..., 4] wxyz.
    """
    angle = tf.norm(pose, axis=-1, keepdims=True)
    small = angle < 1e-6
    safe = tf.where(small, tf.ones_like(angle), angle)
    factor = tf.where(small, 0.5 * tf.ones_like(angle), tf.sin(safe / 2) / safe)
    return tf.concat([tf.cos(angle / 2), pose * factor], axis=-1)


def quaternion_to_axis_angle(quaternion):
    """Axis-angle vectors of length pi at most.

    Args:
        quaternion: [..., 4] wxyz, of unit length.

    Returns:
        [..., 3] rad.
    """
    quaternion = positive_quaternion(quaternion)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    sine = tf.norm(v, axis=-1, keepdims=True)
    small = sine < 1e-6
    safe = tf.where(small, tf.ones_like(sine), sine)
    return v * tf.where(small, 2 / w, 2 * tf.atan2(safe, w) / safe)


def positive_quaternion(quaternion):
    """The quaternion of the same rotation with w >= 0; [..., 4] wxyz."""
    return tf.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_by_trace(pose):
    """Quaternions as read from the rotation matrix by its trace alone.

    Args:
        pose: [..., 3] rad, axis-angle.

    Returns:
        [..., 4] wxyz: w = sqrt(max(trace + 1, 1e-8)) / 2 >= 0, the rest the
        antisymmetric part over 4 w; wrong in the neighbourhood of half turns.

    Source: specs/ikol.md, section 12 (HybrIK's loader).
    """
    angle = tf.norm(pose, axis=-1, keepdims=True)
    safe = tf.where(angle < 1e-6, tf.ones_like(angle), angle)
    # Of a rotation: trace + 1 = 2 + 2 cos(angle), antisymmetric part 2 sin(angle) axis.
    sine = tf.where(angle < 1e-6, tf.ones_like(angle), tf.sin(safe) / safe)
    w = tf.sqrt(tf.maximum(2 + 2 * tf.cos(angle), 1e-8)) / 2
    return tf.concat([w, 2 * sine * pose / (4 * w)], axis=-1)


def rotate_about_z(quaternion, angle_rad):
    """R_z(angle) times a rotation.

    Args:
        quaternion: [..., 4] wxyz.
        angle_rad: [...].

    Returns:
        [..., 4] wxyz.
    """
    w, x, y, z = tf.unstack(quaternion, axis=-1)
    c, s = tf.cos(angle_rad / 2), tf.sin(angle_rad / 2)
    return tf.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], -1)


def rotate_points_about_z(points, angle_rad):
    """R_z(angle) times 3D points.

    Args:
        points: [..., N, C], x, y first; further columns move along.
        angle_rad: [...].

    Returns:
        [..., N, C].
    """
    cos, sin = tf.cos(angle_rad)[..., None], tf.sin(angle_rad)[..., None]
    x, y = points[..., 0], points[..., 1]
    turned = tf.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    return tf.concat([turned, points[..., 2:]], axis=-1)


def rotate_root_about_z(pose, angle_rad):
    """Rotations of a body that is turned as a whole by R_z(angle).

    Args:
        pose: [..., J, 3] rad, axis-angle, the root first.
        angle_rad: [...].

    Returns:
        [..., J, 3] rad; the root's vector has at most the length pi.
    """
    root = rotate_about_z(axis_angle_to_quaternion(pose[..., 0, :]), angle_rad)
    root = quaternion_to_axis_angle(root)
    return tf.concat([root[..., None, :], pose[..., 1:, :]], axis=-2)


def similarity_scale(source, target, weight):
    """Scale of the rotation, scale and shift that best map 2D points to others.

    Args:
        source: [..., N, 2].
        target: [..., N, 2].
        weight: [..., N]; 0 leaves a point out.

    Returns:
        [...]; reflections are not allowed. 0 where the source's points coincide.

    Source: specs/pose_hg.md, section 8.0.
    """
    share = tf.math.divide_no_nan(weight, tf.reduce_sum(weight, -1, keepdims=True))
    share = share[..., None]

    def centred(points):
        return points - tf.reduce_sum(points * share, axis=-2, keepdims=True)

    x, y = centred(target), centred(source)
    a = tf.linalg.matmul(x * share, y, transpose_a=True)
    # Of a 2 x 2 matrix the sum of the singular values, the smaller one negative where
    # the determinant is: the square is |A|^2 + 2 det A.
    total = tf.reduce_sum(a**2, axis=(-2, -1)) + 2 * tf.linalg.det(a)
    spread = tf.reduce_sum(share * y**2, axis=(-2, -1))
    return tf.math.divide_no_nan(tf.sqrt(tf.maximum(total, 0)), spread)
