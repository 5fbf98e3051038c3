    *balance += amount;
    return true;
}
