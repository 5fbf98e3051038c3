    int sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(sum, numbers[i], &sum))
            return INT_MIN;
    }
    return sum;
}
