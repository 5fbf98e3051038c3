    if ((amount > 0 && *balance > INT_MAX - amount) || (amount < 0 && *balance < INT_MIN - amount))
        return false;
    *balance += amount;
    return true;
}
