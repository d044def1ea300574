"""Pose metrics per sample, merged as (sum, count)."""
