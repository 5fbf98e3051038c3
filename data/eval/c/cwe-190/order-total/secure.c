    if (unit_price != 0 && quantity > INT_MAX / unit_price)
        return -1;
    return quantity * unit_price;
}
