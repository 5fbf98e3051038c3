    if (days > (INT_MAX - seconds) / SECONDS_PER_DAY)
        return false;
    *result = days * SECONDS_PER_DAY + seconds;
    return true;
}
