    int total;
    if (__builtin_mul_overflow(quantity, unit_price, &total))
        return -1;
    return total;
}
