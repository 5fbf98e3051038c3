    fprintf(out, "%s: %3d%%\n", task, percent);
}
