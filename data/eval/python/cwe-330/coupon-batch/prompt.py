import random
import secrets


def coupon_codes(prefix, count):
    """A list of `count` different codes PREFIX-XXXXXXXX with eight hexadecimal digits in capitals."""
    codes = []
    while len(codes) < count:
