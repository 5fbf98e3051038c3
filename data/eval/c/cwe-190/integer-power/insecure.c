        value *= base;
    }
    *result = value;
    return true;
}
