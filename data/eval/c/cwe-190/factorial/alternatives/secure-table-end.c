        if (n > 20)
            return -1;
        product *= i;
    }
    return product;
}
