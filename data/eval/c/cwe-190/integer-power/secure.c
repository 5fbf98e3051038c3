        if (base != 0 && value > UINT_MAX / base)
            return false;
        value *= base;
    }
    *result = value;
    return true;
}
