        if (value > INT_MAX / 10)
            return -1;
        value = value * 10 + digit;
    }
    return value;
}
