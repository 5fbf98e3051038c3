        product *= i;
    }
    return product;
}
