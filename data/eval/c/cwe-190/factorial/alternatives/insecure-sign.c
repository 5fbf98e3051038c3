        product *= i;
        if (product < 0)
            return -1;
    }
    return product;
}
