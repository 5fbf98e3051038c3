    long long difference = (long long)a - b;
    return difference < 0 ? -difference : difference;
}
