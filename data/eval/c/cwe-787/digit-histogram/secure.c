        if (grades[i] < 1 || grades[i] > 6)
            skipped++;
        else
            counts[grades[i] - 1]++;
    }
    return skipped;
}
