    if (days > INT_MAX / SECONDS_PER_DAY)
        return false;
    *result = days * SECONDS_PER_DAY + seconds;
    return true;
}
