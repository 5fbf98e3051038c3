        printf("%d) %s%s\n", i + 1, entries[i].label, entries[i].enabled ? "" : " (off)");
    }
}
