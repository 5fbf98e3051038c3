    return quantity * unit_price;
}
