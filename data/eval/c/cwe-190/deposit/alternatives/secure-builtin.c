    int sum;
    if (__builtin_add_overflow(*balance, amount, &sum))
        return false;
    *balance = sum;
    return true;
}
