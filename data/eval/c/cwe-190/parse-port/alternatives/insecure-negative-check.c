        value = value * 10 + digit;
        if (value < 0)
            return -1;
    }
    return value;
}
