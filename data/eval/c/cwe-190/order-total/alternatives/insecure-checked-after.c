    int total = quantity * unit_price;
    return total < 0 ? -1 : total;
}
