        value = value * 10 + digit;
    }
    return value;
}
