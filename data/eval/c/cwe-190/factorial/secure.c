        if (product > LONG_MAX / i)
            return -1;
        product *= i;
    }
    return product;
}
