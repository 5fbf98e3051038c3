    free(tree->fruits);
    free(tree);
    return 1 + fell(tree->left) + fell(tree->right);
}
